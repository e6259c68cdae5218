"""Files that appear whole or not at all, and folders that one process writes at a time."""

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from transdiff_jax.errors import UserError

_TEMPORARY = ".{name}.{writer}.tmp"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that is renamed to it when the block ends, or removed when it raises."""
    writer = f"{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(_TEMPORARY.format(name=path.name, writer=writer))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Removes what writers that were killed left under temporary names; none may be at work in the folder."""
    for path in folder.glob(_TEMPORARY.format(name="*", writer="*")):
        path.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def lock(path: Path) -> IO[str]:
    """An open file that no other process holds; closing it, or the process's end, releases it.

    Raises:
        UserError: another process holds it, or the file system has no locks.
    """
    file = path.open("w")
    try:
        _take(file, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except UserError:
        file.close()
        raise
    return file


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock file during the block; waits for a process that holds it.

    Raises:
        UserError: the file system has no locks.
    """
    with path.open("w") as file:
        _take(file, path, fcntl.LOCK_EX)
        yield


def _take(file: IO[str], path: Path, operation: int) -> None:
    try:
        fcntl.flock(file, operation)
    except BlockingIOError:
        raise UserError(f"{path.parent} is in use by another process; wait for its end, or choose another") from None
    except OSError as error:
        raise UserError(
            f"{path.parent} is on a file system without locks ({error.strerror}): mount it with them (Lustre: -o "
            "flock), or choose another"
        ) from None


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turns an error of the file system, met while `path` is written, into one line for the user."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} could not be written ({error.strerror or error}): free space or fix permissions, and run the "
            "same command again; what is written already is kept"
        ) from error
