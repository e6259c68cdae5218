"""The SHA-256 of every file in a folder, so that a changed bit is found before it becomes a wrong weight."""

import concurrent.futures
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from transdiff_jax.storage.bucket_path import BucketPath
from transdiff_jax.storage.files import write_json
from transdiff_jax.storage.json_files import JsonError, parse_json, read_bytes, unreadable
from transdiff_jax.storage.paths import files_below, missing_files

MANIFEST = "manifest.json"
THREADS = 8
# Orbax rewrites its file when it commits, after the manifest is written; it holds only times and handler names.
_UNLISTED = {"_CHECKPOINT_METADATA", MANIFEST}
_SUM = re.compile(r"([0-9a-f]{64})  (\S+)")


def sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    if isinstance(path, BucketPath):
        return path.sha256()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def format_sum(digest: str, name: str) -> str:
    """One line of a list that `sha256sum --check` reads."""
    return f"{digest}  {name}\n"


def parse_sums(text: str) -> list[tuple[str, str]]:
    """Digests and names from such a list; a line that a kill cut short is left out, or names no existing file."""
    matches = (_SUM.fullmatch(line) for line in text.splitlines())
    return [(match[1], match[2]) for match in matches if match]


def write_manifest(folder: Path) -> None:
    """Writes the SHA-256 of every file below `folder` into the folder's manifest."""
    files = _listed_files(folder)
    write_json(folder / MANIFEST, dict(zip(files, _digests(files.values()), strict=True)))


class DamageError(ValueError):
    """Files are not what was written. The message says in a few words what is wrong."""


class Manifest(NamedTuple):
    """The content of a manifest."""

    digests: dict[str, str]  # of the files, by name
    sha256: str  # of the manifest itself, which identifies the exact files


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        DamageError: it is missing, or is no manifest.
        UserError: it cannot be read, which says nothing about its content.
    """
    path = folder / MANIFEST
    try:
        data = read_bytes(path)
        digests = parse_json(data)
    except FileNotFoundError:
        raise DamageError(f"{MANIFEST} is missing") from None
    except OSError as error:
        raise unreadable(path, error) from None
    except JsonError as error:
        raise DamageError(f"{MANIFEST} {error}") from None
    if not isinstance(digests, dict) or not all(map(_is_entry, digests.items())):
        raise DamageError(f"{MANIFEST} does not list files and their digests")
    if not digests:
        raise DamageError(f"{MANIFEST} lists no files")
    return Manifest(digests, hashlib.sha256(data).hexdigest())


def _is_entry(entry: tuple[str, object]) -> bool:
    name, digest = PurePosixPath(entry[0]), entry[1]
    inside = bool(name.parts) and not name.is_absolute() and ".." not in name.parts
    return inside and isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest) is not None


def check_files(folder: Path, digests: Mapping[str, str]) -> None:
    """Reads files and compares their digests.

    Args:
        folder: where the files are.
        digests: of the files, by name.

    Raises:
        DamageError: a file is missing or has changed.
        UserError: a file exists but cannot be read, which says nothing about its content.
    """
    missing = missing_files(folder, digests)
    if missing:
        raise DamageError(f"{missing[0]} is missing")
    try:
        found = _digests(folder / name for name in digests)
    except FileNotFoundError as error:
        raise DamageError(f"{error.filename.removeprefix(f'{folder}/')} is missing") from None
    except OSError as error:
        raise unreadable(folder, error) from None
    for (name, expected), digest in zip(digests.items(), found, strict=True):
        if digest != expected:
            raise DamageError(f"{name} has changed")


def find_damage(folder: Path) -> str | None:
    """Says in a few words what is wrong with a folder; None if no file has changed since it was written.

    Raises:
        UserError: a file exists but cannot be read, which says nothing about its content.
    """
    try:
        check_files(folder, read_manifest(folder).digests)
    except DamageError as damage:
        return str(damage)
    return None


def intact_files(folder: Path, accepted: Mapping[str, Collection[str]]) -> dict[str, str]:
    """The files below a folder whose digest is accepted.

    Args:
        folder: where the files are.
        accepted: the accepted digests of each file, by name.

    Returns:
        Digests of the accepted files, by name.
    """
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        found = zip(accepted, pool.map(_digest_or_none, (folder / name for name in accepted)), strict=True)
        return {name: digest for name, digest in found if digest is not None and digest in accepted[name]}


def _digest_or_none(path: Path) -> str | None:
    try:
        return sha256(path)
    except OSError:
        return None


def _digests(paths: Iterable[Path]) -> list[str]:
    """In order. Several threads, because one reads slower than disks and networks can, and a checkpoint waits."""
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(sha256, paths))


def _listed_files(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in files_below(folder) if name not in _UNLISTED}
