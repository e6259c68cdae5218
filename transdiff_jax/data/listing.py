"""A list of paths with labels that many processes share without copies: ImageNet has 1,281,167."""

import array
import os
import tempfile
from collections.abc import Iterable

import numpy as np


class Listing:
    """Paths and labels in memory-mapped temporary files without names, which vanish with the process that made them.

    Pickles as the places of these files, so that a worker process maps them too while the one that made them runs.
    """

    def __init__(self, entries: Iterable[tuple[str, int]]) -> None:
        self._files = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115 (open as long as the listing is)
        paths, *numbers = self._files
        ends, labels = array.array("q", [0]), array.array("i")
        for path, label in entries:
            name = os.fsencode(path)
            paths.write(name)
            ends.append(ends[-1] + len(name))
            labels.append(label)
        for file, values in zip(numbers, (ends, labels), strict=True):
            values.tofile(file)
        for file in self._files:
            file.flush()
        self._open([f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in self._files])

    def _open(self, places: list[str]) -> None:
        self._places = places
        self._paths, self._ends, self.labels = (
            np.memmap(place, dtype, "r") for place, dtype in zip(places, (np.uint8, np.int64, np.int32), strict=True)
        )

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        """Path number `index`, from 0."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return os.fsdecode(self._paths[self._ends[index] : self._ends[index + 1]].tobytes())

    def __getstate__(self) -> list[str]:
        return self._places

    def __setstate__(self, places: list[str]) -> None:
        self._open(places)
