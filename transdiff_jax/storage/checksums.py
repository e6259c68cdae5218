"""The SHA-256 of every file of a folder, so that a changed bit is found before it is read as another weight."""

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
# Rewritten by Orbax at the moment of a commit, after the manifest; holds times and handler names only.
_UNLISTED = {"_CHECKPOINT_METADATA", MANIFEST}
_SUM = re.compile(r"([0-9a-f]{64})  (\S+)")


def sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def format_sum(digest: str, name: str) -> str:
    """A line of a list of digests as `sha256sum --check` reads it."""
    return f"{digest}  {name}\n"


def parse_sums(text: str) -> list[tuple[str, str]]:
    """Digests and names of such a list; a line that a kill cut short is left out, or names no file that exists."""
    matches = (_SUM.fullmatch(line) for line in text.splitlines())
    return [(match[1], match[2]) for match in matches if match]


def write_manifest(folder: Path) -> None:
    """Writes the SHA-256 of every file below `folder` into its manifest."""
    files = _listed_files(folder)
    write_json(folder / MANIFEST, dict(zip(files, _digests(files.values()), strict=True)))


def find_damage(folder: Path) -> str | None:
    """What is wrong with a folder, in a few words; None if all files are as they were written.

    Raises:
        UserError: a file is there, but cannot be read: that says nothing about its content.
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
    """Of files below a folder, those that have a digest that is accepted for their name: names and digests."""
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(_digest_or_none, (folder / name for name in accepted))
        return {name: digest for name, digest in zip(accepted, found, strict=True) if digest in accepted[name]}


def _digest_or_none(path: Path) -> str | None:
    try:
        return sha256(path)
    except OSError:
        return None


def _digests(paths: Iterable[Path]) -> list[str]:
    """In order; at once, for one thread reads slower than disks and networks can, and a checkpoint waits for it."""
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(sha256, paths))


def _listed_files(folder: Path) -> dict[str, Path]:
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in files.items() if name not in _UNLISTED}
