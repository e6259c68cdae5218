"""Writes the images of a sample set into archives, one for each run of SHARD_SIZE samples, in the background.

A bucket takes one archive in the time of one image file. An archive is a zip file without compression, whose bytes
depend on the images alone. It is written when all of its images are made; a kill costs those of unfinished archives.
"""

import collections
import concurrent.futures
import hashlib
import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from transdiff_jax.errors import UserError
from transdiff_jax.generation.image_writer import THREADS
from transdiff_jax.generation.sample_files import PROGRESS, archive_path, sample_of
from transdiff_jax.images.png import encode_png
from transdiff_jax.storage.checksums import format_sum
from transdiff_jax.storage.files import write_bytes, write_errors

MAX_ARCHIVES = 2  # being written, beside the one whose images are made; each is in memory

Encoded = concurrent.futures.Future[bytes]


class ArchiveWriter:
    """Takes batches of images, and writes an archive as soon as it has all of its images.

    Its digest is noted in a file of its own after the archive has its name. So an archive that a kill interrupts is not
    noted, and is made again.
    """

    def __init__(self, folder: Path, expected: Mapping[str, int]) -> None:
        """Starts the threads.

        Args:
            folder: of the set.
            expected: how many images belong into each archive that this process writes, by its name.
        """
        self._folder, self._expected = folder, expected
        self._images: dict[str, dict[str, Encoded]] = {}  # by archive and name
        self._batch: list[Encoded] = []  # the newest one
        self._archives: collections.deque[concurrent.futures.Future[None]] = collections.deque()
        self._encoders = concurrent.futures.ThreadPoolExecutor(THREADS)
        self._writers = concurrent.futures.ThreadPoolExecutor(MAX_ARCHIVES)

    def __enter__(self) -> Self:
        return self

    def write(self, files: Iterable[tuple[str, np.ndarray]]) -> None:
        """Takes names and images; keeps those of this process's archives, and waits only while too many are unwritten.

        Raises:
            UserError: an archive could not be written.
        """
        concurrent.futures.wait(self._batch)
        self._batch = []
        for name, image in files:
            archive = archive_path(Path(), int(sample_of(name))).as_posix()
            if archive in self._expected:
                self._batch.append(self._encoders.submit(encode_png, image))
                self._images.setdefault(archive, {})[name] = self._batch[-1]
        for archive in [name for name, images in self._images.items() if len(images) == self._expected[name]]:
            self._archives.append(self._writers.submit(self._write_one, archive, self._images.pop(archive)))
        self._wait(MAX_ARCHIVES)

    def _wait(self, allowed: int) -> None:
        """Returns once at most `allowed` archives are unwritten."""
        while len(self._archives) > allowed or (self._archives and self._archives[0].done()):
            self._archives.popleft().result()

    def _write_one(self, archive: str, images: Mapping[str, Encoded]) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for name in sorted(images):
                file.writestr(zipfile.ZipInfo(name), images[name].result())
        data, path = buffer.getvalue(), self._folder / archive
        with write_errors(path):
            write_bytes(path, data)
            note = format_sum(hashlib.sha256(data).hexdigest(), archive)
            write_bytes(self._folder / PROGRESS / path.stem, note.encode())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for the archives that have all of their images, even after a UserError of the caller."""
        expected = kind is None or issubclass(kind, UserError)
        try:
            if kind is None:
                self._wait(0)
        finally:
            self._encoders.shutdown(cancel_futures=not expected)
            self._writers.shutdown(cancel_futures=not expected)
