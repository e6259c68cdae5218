"""Arrays that many processes share without copies."""

import os
import tempfile
from typing import NamedTuple

import numpy as np


class NamelessFile(NamedTuple):
    """An array in a file without a name, which vanishes with the process that holds it open, however that ends.

    Other processes reach the file through that process's file descriptor, as long as the process runs.
    """

    path: str  # /proc/PROCESS/fd/NUMBER
    dtype: str
    shape: tuple[int, ...]

    def mapped(self) -> np.ndarray:
        """The array, read-only and shared by all processes that map it."""
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype)
        return np.memmap(self.path, self.dtype, "r", shape=self.shape)


class SharedArrays:
    """Read-only arrays in memory-mapped files.

    They pickle as the paths of the files, so that a worker process maps them too, while the process that made them
    runs.
    """

    def __init__(self, *arrays: np.ndarray) -> None:
        self._open_files = [tempfile.TemporaryFile() for _ in arrays]  # noqa: SIM115 (open as long as this is)
        places = []
        for file, values in zip(self._open_files, arrays, strict=True):
            file.write(np.ascontiguousarray(values).data if values.size else b"")
            file.flush()
            places.append(NamelessFile(f"/proc/{os.getpid()}/fd/{file.fileno()}", values.dtype.str, values.shape))
        self.__setstate__(tuple(places))

    def __getstate__(self) -> tuple[NamelessFile, ...]:
        return self._files

    def __setstate__(self, files: tuple[NamelessFile, ...]) -> None:
        self._files = files
        self.arrays = tuple(file.mapped() for file in files)
