"""Reads `.npz` files from anywhere: what a file declares is compared with its size before memory is taken for it."""

import contextlib
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

import numpy as np

_SUFFIX = ".npy"
# NumPy writes no other kinds, and for these the size of the file bounds the size of its content.
_COMPRESSIONS = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1040}
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# NumPy, zipfile and Python's parser of literals raise any of these for a damaged file, depending on its bytes.
_DAMAGE = (
    *(OSError, ValueError, LookupError, TypeError, EOFError, NotImplementedError, SyntaxError, RecursionError),
    *(MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
_SHOWN = 200  # letters of such an error; some quote the file


class NpzError(Exception):
    """A file that is no `.npz`, that is damaged, or that holds other than plain arrays."""


class Header(NamedTuple):
    """What an array in a file says of itself; its bytes are there."""

    shape: tuple[int, ...]
    dtype: np.dtype
    column_major: bool


class NpzFile:
    """The arrays of a `.npz` file, read on demand. No Python object is ever made of what it holds."""

    def __init__(self, path: Path) -> None:
        """Reads the list of arrays.

        Raises:
            OSError: the file cannot be opened.
            NpzError: it is no regular file, or no zip archive.
        """
        if path.exists() and not path.is_file():
            raise NpzError("it is not a file")
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(path.open("rb"))
            with _damage():
                self._archive = stack.enter_context(zipfile.ZipFile(file))
            self._close = stack.pop_all()
        entries = [entry for entry in self._archive.infolist() if entry.filename.endswith(_SUFFIX)]
        self._entries = {entry.filename.removesuffix(_SUFFIX): entry for entry in entries}
        self._size = path.stat().st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file."""
        self._close.close()

    @property
    def names(self) -> list[str]:
        """Names of all arrays, in the order of the file."""
        return list(self._entries)

    def __contains__(self, name: str) -> bool:
        """Whether there is an array of this name."""
        return name in self._entries

    def __getitem__(self, name: str) -> np.ndarray:
        """A whole array.

        Raises:
            KeyError: there is none of this name.
            NpzError: it cannot be read, or is not what the file declares.
        """
        self.header(name)
        with _damage(), self._archive.open(self._entries[name]) as file:
            return np.lib.format.read_array(file, allow_pickle=False)

    def header(self, name: str) -> Header:
        """The header of an array; raises like `__getitem__`."""
        entry = self._entries[name]
        with _damage(), self._opened(entry) as (header, _):
            return header

    def batches(self, name: str, size: int) -> Iterator[np.ndarray]:
        """Yields a row-major array in parts along its first axis, the last of which may be smaller.

        Args:
            name: of the array.
            size: rows of each part.

        Raises:
            KeyError: there is no such array.
            NpzError: it cannot be read, or is not what the file declares.
        """
        entry = self._entries[name]
        with contextlib.ExitStack() as stack:
            with _damage():
                header, file = stack.enter_context(self._opened(entry))
            row = math.prod(header.shape[1:]) * header.dtype.itemsize
            for start in range(0, header.shape[0], size):
                count = min(size, header.shape[0] - start)
                with _damage():
                    part = np.frombuffer(file.read(count * row), header.dtype).reshape(count, *header.shape[1:])
                yield part

    @contextlib.contextmanager
    def _opened(self, entry: zipfile.ZipInfo) -> Iterator[tuple[Header, IO[bytes]]]:
        """The checked header of an array, and its file, read up to the first element."""
        _check_entry(entry, self._size)
        with self._archive.open(entry) as file:
            header = Header(*_read_header(file))
            _check_header(header, entry.file_size - file.tell())
            yield header, file


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise NpzError(" ".join(str(error).split())[:_SHOWN] or type(error).__name__) from None


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, bool]:
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"format {version} of arrays is not known")
    shape, column_major, dtype = _HEADERS[version](file)
    return shape, dtype, column_major


def _check_entry(entry: zipfile.ZipInfo, available: int) -> None:
    """Raises a ValueError if the file is too small for what its directory declares."""
    if entry.compress_type not in _COMPRESSIONS:
        raise ValueError(f"compression {entry.compress_type} is not one that NumPy writes")
    possible = min(entry.compress_size, available) * _COMPRESSIONS[entry.compress_type]
    if entry.file_size > possible:
        raise ValueError(f"{entry.filename} declares {entry.file_size} bytes, but the file holds at most {possible}")


def _check_header(header: Header, available: int) -> None:
    """Raises a ValueError unless an array of plain elements takes exactly the bytes that follow its header."""
    if header.dtype.hasobject:
        raise ValueError("it holds Python objects, which are never loaded")
    if any(size < 0 for size in header.shape):
        raise ValueError(f"its shape {header.shape} has a negative size")
    declared = math.prod(header.shape) * header.dtype.itemsize
    if declared != available:
        raise ValueError(f"its shape {header.shape} of {header.dtype} takes {declared} bytes, not {available}")
