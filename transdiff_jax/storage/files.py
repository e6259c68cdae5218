"""Files that appear whole or not at all, and locks that give a folder to one process at a time."""

import contextlib
import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from transdiff_jax.errors import UserError
from transdiff_jax.storage.bucket_path import BucketPath
from transdiff_jax.storage.leases import Lease

Json = dict[str, Any]  # the object in a JSON file

_TEMPORARY = ".{name}.{writer}.tmp"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; it is renamed when the block ends, or removed when the block raises.

    For a path in a bucket the temporary one is on this machine; it is uploaded when the block ends.
    """
    if isinstance(path, BucketPath):
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / path.name
            yield local
            with write_errors(path):
                path.upload(local)
        return
    writer = f"{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(_TEMPORARY.format(name=path.name, writer=writer))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Removes the temporary files of killed writers. No writer may be at work in the folder."""
    for path in folder.glob(_TEMPORARY.format(name="*", writer="*")):
        path.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file atomically."""
    if isinstance(path, BucketPath):
        path.write_bytes(data)
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Json) -> None:
    """Writes indented JSON atomically."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def lock(path: Path) -> IO[str] | Lease:
    """Locks a file against other processes and returns it open; closing it, or the process's end, releases the lock.

    In a bucket a lease stands for the lock: a process that is killed holds it a while longer.

    Raises:
        UserError: another process holds the lock, or the file system has no locks.
    """
    if isinstance(path, BucketPath):
        return Lease(path)
    file = path.open("a")
    try:
        _take(file, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except UserError:
        file.close()
        raise
    return file


def check_lock(held: IO[str] | Lease | None) -> None:
    """Raises a UserError if another process has taken a lock over, as a bucket allows; None is no lock of this process.

    It asks the server nothing.
    """
    if isinstance(held, Lease):
        held.check()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Locks a file during the block, after waiting for any process that holds it.

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
        raise UserError(
            f"{path.parent} is in use by another process; wait for it to end, or choose another folder"
        ) from None
    except OSError as error:
        raise UserError(
            f"{path.parent} is on a file system without locks ({error.strerror}): mount it with locks (Lustre: -o "
            "flock), or choose another folder"
        ) from None


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turns a file system error while `path` is written into one line for the user.

    Raises:
        UserError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} could not be written ({error.strerror or error}): free space or fix permissions, then run the "
            "same command again; finished files are kept"
        ) from error
