"""Reads one whole step beside a trainer that may delete that step at any moment.

A read chooses a step, checks its files, reads them, and looks again: the same manifest and the files must still be
there. If they are not, the read starts again with the step that is newest then.
"""

import contextlib
import enum
import gc
import hashlib
import logging as stdlib_logging
import sys
import types
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from transdiff_jax.checkpoints.checks import check_items, check_record, files_of, warn_of_unlisted
from transdiff_jax.checkpoints.record import RUN, RunRecord, read_record
from transdiff_jax.checkpoints.step_names import saved_steps, warn_of_others
from transdiff_jax.checkpoints.steps import newest_intact, nothing_intact
from transdiff_jax.errors import UserError
from transdiff_jax.parallel.processes import do_in_first_process, in_first_process
from transdiff_jax.storage.checksums import DamageError, Manifest, read_manifest
from transdiff_jax.storage.paths import missing_files

ATTEMPTS = 5
_NONE = -1
_DIGEST_BYTES = hashlib.sha256().digest_size
Value = TypeVar("Value")
Items = Callable[[RunRecord], Collection[str]]


class Step(NamedTuple):
    """A step whose record was read."""

    folder: Path
    manifest: Manifest
    record: RunRecord

    @property
    def number(self) -> int:
        """How many batches it has seen."""
        return int(self.folder.name)


class _VanishedError(Exception):
    """The step that was read is gone, or another one stands in its place."""


class _Outcome(enum.IntEnum):
    DONE, VANISHED, FAILED = range(3)


def read_step(
    folder: Path, asked: int | None, items: Items, fits: Callable[[Step], None], read: Callable[[Step], Value]
) -> tuple[Step, Value]:
    """Reads from the newest intact step, or from step `asked`; changes nothing. Every process must call this.

    Args:
        folder: the run's checkpoints.
        asked: a step; None for the newest intact one.
        items: the items that `read` needs besides the record; only these are checked.
        fits: called in the first process when these items are intact; raises `DamageError` if the record does not fit
            them.
        read: called in every process; it must not wait for other processes.

    Returns:
        The step, and what `read` returned, all of it from that step.

    Raises:
        UserError: there is no such step, or the run deleted each step while it was read.
    """
    do_in_first_process(lambda: warn_of_others(folder))
    for _ in range(ATTEMPTS):
        number, *digest = in_first_process(lambda: _choose(folder, asked, items, fits), 1 + _DIGEST_BYTES, np.int32)
        if number == _NONE:
            continue
        found, error = None, None
        with _late_errors_dropped():
            try:
                found = _read_whole(folder / str(number), bytes(map(int, digest)).hex(), items, read)
                outcome = _Outcome.DONE
            except _VanishedError:
                outcome = _Outcome.VANISHED
            except Exception as caught:
                outcome, error = _Outcome.FAILED, caught
            if outcome == _Outcome.VANISHED:
                gc.collect()  # what is left of the read ends here
        worst = np.max(multihost_utils.process_allgather(np.array(outcome)))
        if worst == _Outcome.FAILED:
            raise error or UserError("the job was stopped by another process; the output of that process says why")
        if worst == _Outcome.DONE and found is not None:
            return found
        logging.info("the checkpoint of step %d in %s was deleted while it was read; reading again", number, folder)
    raise UserError(
        f"{folder}: the run deleted or replaced the checkpoint {ATTEMPTS} times while it was read; try again, or raise "
        "its config.train.checkpoint_every or config.train.keep_last"
    )


def _choose(folder: Path, asked: int | None, items: Items, fits: Callable[[Step], None]) -> np.ndarray:
    """The number of the step to read and the bytes of its manifest's digest, or `_NONE` if a step has vanished."""
    seen = saved_steps(folder)
    if asked is not None and asked not in seen:
        raise UserError(f"{folder} holds no checkpoint of step {asked}; choose one of {seen}")

    def check(step_folder: Path) -> Step:
        manifest = None
        try:
            manifest = read_manifest(step_folder)
            step = Step(step_folder, manifest, check_record(step_folder, manifest))
            check_items(step_folder, manifest, items(step.record))
            fits(step)
            warn_of_unlisted(step_folder, manifest)
            return step
        except Exception:
            # A trainer deletes a step when it has a newer one.
            now = saved_steps(folder)
            replaced = manifest is not None and not _is_whole(step_folder, manifest.sha256, ())
            if replaced or int(step_folder.name) not in now or now[-1] > seen[-1]:
                raise _VanishedError from None
            raise

    try:
        step, damaged = newest_intact(folder, seen if asked is None else [asked], check)
    except _VanishedError:
        return np.array([_NONE] + [0] * _DIGEST_BYTES)
    if step is not None:
        return np.array([step.number, *bytes.fromhex(step.manifest.sha256)])
    if asked is not None:
        reason = damaged[asked]
        raise UserError(f"the checkpoint of step {asked} in {folder} is damaged ({reason}); choose another step")
    raise nothing_intact(folder, damaged, "train there first")


def _read_whole(step_folder: Path, digest: str, items: Items, read: Callable[[Step], Value]) -> tuple[Step, Value]:
    """Reads from the step whose manifest has this digest; raises `_VanishedError` if it is not there to the end."""
    wanted: Collection[str] = ()
    try:
        step = Step(step_folder, read_manifest(step_folder), read_record(step_folder))
        wanted = files_of(step.manifest, {RUN, *items(step.record)})
        value = read(step)
    except Exception:
        if _is_whole(step_folder, digest, wanted):
            raise
        raise _VanishedError from None
    # TensorStore may read zeros where files are missing, so that an undisturbed `read` proves nothing.
    if not _is_whole(step_folder, digest, wanted):
        raise _VanishedError
    return step, value


def _is_whole(step_folder: Path, digest: str, files: Collection[str]) -> bool:
    """Whether files are still there, and then the manifest with this digest."""
    try:
        return not missing_files(step_folder, files) and read_manifest(step_folder).sha256 == digest
    except (DamageError, UserError):
        return False


@contextlib.contextmanager
def _late_errors_dropped() -> Iterator[None]:
    """Drops what is printed about a read's other arrays when one was missing, and Orbax closed their event loop."""
    hook, asyncio_log = sys.unraisablehook, stdlib_logging.getLogger("asyncio")

    def drop(report: "sys.UnraisableHookArgs") -> None:
        if not isinstance(report.object, types.CoroutineType) and str(report.exc_value) != "Event loop is closed":
            hook(report)

    sys.unraisablehook, asyncio_log.disabled = drop, True
    try:
        yield
    finally:
        sys.unraisablehook, asyncio_log.disabled = hook, False
