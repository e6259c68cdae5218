"""A list of paths with labels that many processes share without copies: ImageNet has 1,281,167 images."""

import os

import numpy as np

from transdiff_jax.data.shared_arrays import SharedArrays


class Listing:
    """Shared paths and labels.

    Args:
        names: the paths, each with a zero byte behind it.
        labels: of each path, int32 [n].
    """

    def __init__(self, names: bytes, labels: np.ndarray) -> None:
        characters = np.frombuffer(names, np.uint8)
        ends = np.flatnonzero(characters == 0).astype(np.int64)
        self._shared = SharedArrays(characters, ends, labels.astype(np.int32))

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
        start = ends[index - 1] + 1 if index else 0
        return os.fsdecode(names[start : ends[index]].tobytes())
