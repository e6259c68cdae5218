"""Reads a file in a bucket part by part."""

import errno
import io
import os
from pathlib import Path
from typing import Any

from transdiff_jax.storage.bucket_client import errors_of


class Parts(io.RawIOBase):
    """The bytes of a file; each read is one request."""

    def __init__(self, path: Path, blob: Any, size: int) -> None:
        """Asks the server nothing.

        Args:
            path: of the file, for errors.
            blob: the client's object of one generation of the file.
            size: of the file, in bytes.
        """
        self._path, self._blob, self._size, self._place = path, blob, size, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Sets the place of the next read."""
        place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        if place < 0:
            raise OSError(errno.EINVAL, "there is nothing before its start", str(self._path))
        self._place = place
        return place

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer as far as the file goes; raises like `errors_of`."""
        end = min(self._place + len(buffer), self._size)
        if self._place >= end:
            return 0
        with errors_of(self._path):
            # The server knows the checksum of the whole file only.
            data = self._blob.download_as_bytes(start=self._place, end=end - 1, checksum=None)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def readall(self) -> bytes:
        """The rest of the file, in one request."""
        rest = bytearray(max(0, self._size - self._place))
        return bytes(rest[: self.readinto(rest)])
