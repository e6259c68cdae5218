"""Checks the files of a step against its manifest, all of them or those of some items."""

from collections.abc import Collection
from pathlib import Path

from absl import logging

from transdiff_jax.checkpoints.items import STATE, items_of_run
from transdiff_jax.checkpoints.record import RUN, RunRecord, read_record
from transdiff_jax.checkpoints.step_names import COMMITTED
from transdiff_jax.storage.checksums import MANIFEST, DamageError, Manifest, check_files, read_manifest
from transdiff_jax.storage.paths import files_below

_METADATA = "_CHECKPOINT_METADATA"  # Orbax writes it after the manifest


def check_items(step_folder: Path, manifest: Manifest, items: Collection[str]) -> dict[str, str]:
    """Reads all files of some items and compares their digests.

    Args:
        step_folder: of the step.
        manifest: of the step.
        items: names of items. Arrays of version 0.1 are all in one.

    Returns:
        The digests of these files, by name.

    Raises:
        DamageError: a file is missing, has changed, or is not in the manifest.
        UserError: a file exists but cannot be read.
    """
    digests = files_of(manifest, items)
    folders = {name.partition("/")[0] for name in digests}
    absent = stored_items(manifest, items) - folders
    if absent:
        raise DamageError(f"{MANIFEST} lists no file of {min(absent)}")
    # A manifest that was cut short would leave the other files unchecked.
    unlisted = [name for folder in folders for name in _files(step_folder, folder) if name not in digests]
    if unlisted:
        raise DamageError(f"{MANIFEST} does not list {unlisted[0]}")
    check_files(step_folder, digests)
    return digests


def files_of(manifest: Manifest, items: Collection[str]) -> dict[str, str]:
    """The digests of the files of some items, by name."""
    stored = stored_items(manifest, items)
    return {name: digest for name, digest in manifest.digests.items() if name.partition("/")[0] in stored}


def stored_items(manifest: Manifest, items: Collection[str]) -> set[str]:
    """The folders in which a step keeps items."""
    old = any(name.startswith(f"{STATE}/") for name in manifest.digests)
    return {STATE if old and item != RUN else item for item in items}


def check_record(step_folder: Path, manifest: Manifest) -> RunRecord:
    """The record of a step, whose file is checked first; raises like `check_items`."""
    if not (step_folder / _METADATA).is_file():
        raise DamageError(f"{_METADATA} is missing")
    check_items(step_folder, manifest, [RUN])
    return read_record(step_folder)


def check_step(step_folder: Path) -> RunRecord:
    """Checks all files of a step and returns its record; raises like `check_items`."""
    manifest = read_manifest(step_folder)
    record = check_record(step_folder, manifest)
    check_items(step_folder, manifest, items_of_run(len(record.config.train.ema_rates)) - {RUN})
    warn_of_unlisted(step_folder, manifest)
    return record


def warn_of_unlisted(step_folder: Path, manifest: Manifest) -> None:
    """Logs the files of a step that its manifest does not vouch for."""
    known = {MANIFEST, _METADATA, COMMITTED, *manifest.digests}
    unlisted = [name for name in _files(step_folder) if name not in known]
    if unlisted:
        logging.warning(
            "%s also holds %s, which its manifest does not list", step_folder, ", ".join(map(repr, unlisted))
        )


def _files(step_folder: Path, item: str = "") -> list[str]:
    """Names of the files below an item, or of all files."""
    start = f"{item}/" if item else ""
    try:
        return [start + name for name in files_below(step_folder / item)]
    except FileNotFoundError:
        raise DamageError(f"{item or step_folder.name} is being deleted") from None
