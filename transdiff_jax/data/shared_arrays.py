"""Arrays that many processes share without copies."""

import os
import tempfile

import numpy as np


class SharedArrays:
    """Arrays in memory-mapped temporary files without names, which vanish with the process that made them.

    Pickles as the places of these files, so that a worker process maps them too while the one that made them runs.
    """

    def __init__(self, *arrays: np.ndarray) -> None:
        self._files = [tempfile.TemporaryFile() for _ in arrays]  # noqa: SIM115 (open as long as this is)
        places = []
        for file, values in zip(self._files, arrays, strict=True):
            file.write(np.ascontiguousarray(values).data if values.size else b"")
            file.flush()
            places.append((f"/proc/{os.getpid()}/fd/{file.fileno()}", values.dtype.str, values.shape))
        self._open(places)

    def _open(self, places: list[tuple[str, str, tuple[int, ...]]]) -> None:
        self._places = places
        self.arrays = tuple(
            np.memmap(place, dtype, "r", shape=shape) if np.prod(shape) else np.empty(shape, dtype)
            for place, dtype, shape in places
        )

    def __getstate__(self) -> list[tuple[str, str, tuple[int, ...]]]:
        return self._places

    def __setstate__(self, places: list[tuple[str, str, tuple[int, ...]]]) -> None:
        self._open(places)
