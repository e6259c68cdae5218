"""Writes image files in the background and notes a digest of each.

The device computes while images are encoded. Memory is bounded, because only a few batches may wait.
"""

import collections
import concurrent.futures
import hashlib
import secrets
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from transdiff_jax.errors import UserError
from transdiff_jax.images.png import encode_png
from transdiff_jax.storage.checksums import format_sum
from transdiff_jax.storage.files import write_bytes, write_errors

THREADS = 8  # encoding releases the interpreter's lock
MAX_BATCHES = 2  # waiting or being written, beside the one that the device computes


class ImageWriter:
    """Writes batches of PNG files below a folder, in threads.

    A file's digest enters the journal after the file has its name. So a file that a kill or a full disk interrupts is
    not in the journal, and is made again.
    """

    def __init__(self, folder: Path, journal_folder: str) -> None:
        """Starts the threads, and a new journal with a random name in `journal_folder`, which is below `folder`.

        Raises:
            UserError: the journal cannot be written.
        """
        self._folder = folder
        self._journal_path = folder / journal_folder / secrets.token_hex(8)
        self._lock = threading.Lock()
        self._batches: collections.deque[list[concurrent.futures.Future[None]]] = collections.deque()
        self._failure: UserError | None = None
        with write_errors(self._journal_path):
            self._journal = self._journal_path.open("ab", buffering=0)
        self._pool = concurrent.futures.ThreadPoolExecutor(THREADS)

    def __enter__(self) -> Self:
        return self

    def write(self, files: Iterable[tuple[str, np.ndarray]]) -> None:
        """Takes a batch of names and images; waits only while too many batches are unwritten.

        Raises:
            UserError: a file of this or an earlier batch could not be written.
        """
        self._wait(MAX_BATCHES - 1)
        self._batches.append([self._pool.submit(self._write_one, name, image) for name, image in files])

    def _wait(self, allowed: int) -> None:
        """Returns once at most `allowed` batches are unwritten."""
        while len(self._batches) > allowed:
            concurrent.futures.wait(self._batches[0])
            for future in self._batches.popleft():
                future.result()
        if self._failure is not None:
            raise self._failure

    def _write_one(self, name: str, image: np.ndarray) -> None:
        if self._failure is not None:
            return  # the job is ending
        path = self._folder / name
        try:
            with write_errors(path):
                data = encode_png(image)
                write_bytes(path, data)
                with self._lock:
                    self._journal.write(format_sum(hashlib.sha256(data).hexdigest(), name).encode())
        except UserError as error:
            self._failure = error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for all files, even after a UserError of the caller; after any other error, drops those that wait."""
        try:
            if kind is None:
                self._wait(0)
        finally:
            expected = kind is None or issubclass(kind, UserError)
            self._pool.shutdown(cancel_futures=not expected or self._failure is not None)
            with write_errors(self._journal_path):
                self._journal.close()
