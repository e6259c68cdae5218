"""Reads the images of a sample set, whether each is a file or many are in an archive."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from transdiff_jax.errors import UserError
from transdiff_jax.generation.sample_files import archive_path, is_archive, sample_of
from transdiff_jax.images.decoding import UnreadableImage, decode

AGAIN = "run the same transdiff sample command again, which mends it"
MOST_ARCHIVES = 2  # in memory
# zipfile raises any of these for an archive that is not what was written.
_DAMAGE = (KeyError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile)


class SampleReader:
    """Reads images by name; any number of threads may read."""

    def __init__(self, folder: Path, digests: Mapping[str, str]) -> None:
        """Prepares to read.

        Args:
            folder: of the set.
            digests: SHA-256 of its files by name. A file or archive that has another digest is not read.
        """
        self._folder, self._digests = folder, digests
        self._archived = any(map(is_archive, digests))
        self._archives: dict[str, zipfile.ZipFile] = {}  # the newest last
        self._lock = threading.Lock()

    def read(self, name: str) -> bytes:
        """The PNG file of this name, such as "images/000000.png".

        Raises:
            UserError: it is missing, or has changed since it was written.
        """
        if not self._archived:
            return self._checked(name)
        archive = archive_path(Path(), int(sample_of(name))).as_posix()
        with self._lock:
            if archive not in self._archives:
                self._archives[archive] = self._opened(archive)
                if len(self._archives) > MOST_ARCHIVES:
                    del self._archives[next(iter(self._archives))]
            try:
                return self._archives[archive].read(name)
            except _DAMAGE:
                raise UserError(f"{self._folder / archive} holds no intact {name}; {AGAIN}") from None

    def _opened(self, archive: str) -> zipfile.ZipFile:
        data = self._checked(archive)
        try:
            file = zipfile.ZipFile(io.BytesIO(data))
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in file.infolist()):
                raise zipfile.BadZipFile
        except _DAMAGE:
            raise UserError(f"{self._folder / archive} is no archive of transdiff sample; {AGAIN}") from None
        return file

    def _checked(self, name: str) -> bytes:
        return read_file(self._folder / name, self._digests.get(name))


def read_file(path: Path, digest: str | None) -> bytes:
    """The content of a file, which must have the digest, if there is one.

    Raises:
        UserError: it cannot be read, or has another digest.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise UserError(f"{path} has changed since transdiff sample wrote it; {AGAIN}")
    return data


def decode_image(path: Path, data: bytes, channels: int) -> UInt8[np.ndarray, "height width {channels}"]:
    """The pixels of an image file's content; raises a UserError, which names `path`, if it is no image."""
    try:
        return decode(data, channels)
    except UnreadableImage as error:
        raise UserError(f"{path} cannot be read as an image ({error}); replace or remove it") from None
