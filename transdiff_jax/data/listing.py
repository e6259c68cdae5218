"""Arrays, and a list of paths with labels, that many processes share without copies: ImageNet has 1,281,167 images."""

import array
import os
import tempfile
from collections.abc import Iterable

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


class Listing:
    """Paths and labels, shared."""

    def __init__(self, entries: Iterable[tuple[str, int]]) -> None:
        names, ends, labels = bytearray(), array.array("q", [0]), array.array("i")
        for path, label in entries:
            names += os.fsencode(path)
            ends.append(len(names))
            labels.append(label)
        self._shared = SharedArrays(
            np.frombuffer(names, np.uint8), np.array(ends, np.int64), np.array(labels, np.int32)
        )

    @property
    def labels(self) -> np.ndarray:
        """Label of each path, int32 [len]."""
        return self._shared.arrays[2]

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        """Path number `index`, from 0."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        names, ends, _ = self._shared.arrays
        return os.fsdecode(names[ends[index] : ends[index + 1]].tobytes())
