"""The SHA-256 of every file in a folder, so that a changed bit is found before it becomes a wrong weight."""

import concurrent.futures
import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from transdiff_jax.errors import UserError
from transdiff_jax.storage.files import write_json

MANIFEST = "manifest.json"
THREADS = 8
# Orbax rewrites its file when it commits, after the manifest is written; it holds only times and handler names.
_UNLISTED = {"_CHECKPOINT_METADATA", MANIFEST}
_SUM = re.compile(r"([0-9a-f]{64})  (\S+)")


def sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
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


def find_damage(folder: Path) -> str | None:
    """Says in a few words what is wrong with a folder; None if no file has changed since it was written.

    Raises:
        UserError: a file exists but cannot be read, which says nothing about its content.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        for name in manifest:
            if not (folder / name).is_file():
                return f"{name} is missing"
        found = zip(manifest.items(), _digests(folder / name for name in manifest), strict=True)
        for (name, expected), digest in found:
            if digest != expected:
                return f"{name} has changed"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be read: {error.strerror}") from None
    except (ValueError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    return None if manifest else f"{MANIFEST} lists no files"


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
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in files.items() if name not in _UNLISTED}
