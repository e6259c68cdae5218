"""Paths as people write them: the only place that tells a local path from the address of something elsewhere."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from transdiff_jax.errors import UserError
from transdiff_jax.storage.bucket_path import SCHEME, BucketPath, bucket_path

# pathlib makes gs:/bucket of gs://bucket.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_COPY = "copy it, or mount it as a folder (such as a bucket with gcsfuse)"
_LOCAL_ONLY = f"only local paths work here: {_COPY}"


def scheme_of(value: str | os.PathLike[str]) -> str:
    """The scheme of an address in lower case, such as "gs" of gs://bucket/folder; empty for a local path."""
    found = _ADDRESS.match(os.fspath(value).strip())
    return found[1].lower() if found else ""


def user_path(value: str | os.PathLike[str], name: str, remedy: str = _LOCAL_ONLY) -> Path:
    """The local path of a flag, a field or an argument, with its ~ expanded: shells leave that of --flag=~/runs alone.

    Args:
        value: the path as it was given.
        name: what holds it, for errors: "--workdir", "config.data.directory".
        remedy: what to do instead if it is the address of something elsewhere.

    Raises:
        UserError: it is empty, as an unset variable leaves it, and would mean the current folder; it is an address,
            such as s3://bucket/folder; or no file system can have it.
    """
    text = given_text(value, name)
    if scheme_of(text) or "://" in text:
        raise UserError(f"{name}={text} is no local path, and {remedy}")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~name of a user whom the machine does not know
        raise UserError(f"{name}={text}: {error}") from None


def location(value: str | os.PathLike[str], name: str) -> Path:
    """The place of a flag, a field or an argument that may be in a bucket: a local path, or a `BucketPath`.

    Args:
        value: a local path, or gs://BUCKET/FOLDER.
        name: what holds it, for errors.

    Raises:
        UserError: as in `user_path`; or it is an address of another kind, or a package for buckets is missing.
    """
    if scheme_of(value) == SCHEME:
        return bucket_path(given_text(value, name), name)
    return user_path(value, name, f"gs://BUCKET/FOLDER is the only address that works here: {_COPY}")


def files_below(folder: Path) -> dict[str, int]:
    """The size of each file below a folder by its name from there, sorted; without a file that vanishes meanwhile."""
    if isinstance(folder, BucketPath):
        return folder.sizes()
    found = {}
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                found[path.relative_to(folder).as_posix()] = path.stat().st_size
    return found


def missing_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Those names of files below a folder that do not exist, in order."""
    names = list(names)
    found = sizes_of(folder, names)
    return [name for name in names if name not in found]


def sizes_of(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """The sizes of those of some files below a folder that exist, by name."""
    if isinstance(folder, BucketPath):
        found = folder.sizes()
        return {name: found[name] for name in names if name in found}
    return {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}


def move_tree(source: Path, target: Path) -> None:
    """Moves a folder. In a bucket each file is copied, then deleted, so that a kill leaves some files in both."""
    if not isinstance(source, BucketPath) or not isinstance(target, BucketPath):
        shutil.move(source, target)
        return
    names = list(source.sizes())
    for name in names:
        (source / name).copy_to(target / name)
    for name in names:
        (source / name).unlink(missing_ok=True)


def delete_tree(folder: Path) -> None:
    """Deletes a folder as far as possible; nothing happens if there is none."""
    if not isinstance(folder, BucketPath):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        for name in folder.sizes():
            (folder / name).unlink(missing_ok=True)


def given_text(value: str | os.PathLike[str], name: str) -> str:
    """The text of a path or an address; raises like `user_path` for what can be neither."""
    text = os.fspath(value)
    if not text.strip():
        raise UserError(f"{name}= is empty: give it a path (is a shell variable unset?)")
    if "\0" in text:
        raise UserError(f"{name}={text!r} holds a character that no path can have: correct it")
    return text
