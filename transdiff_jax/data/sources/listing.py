"""A list of paths with labels that many processes share without copies: ImageNet has 1,281,167 images."""

import array
import os
from collections.abc import Iterable

import numpy as np

from transdiff_jax.data.shared_arrays import SharedArrays


class Listing:
    """Shared paths and labels."""

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
        """Path number `index`, counted from 0."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        names, ends, _ = self._shared.arrays
        return os.fsdecode(names[ends[index] : ends[index + 1]].tobytes())
