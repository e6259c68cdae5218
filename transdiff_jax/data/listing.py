"""A list of paths with labels that many processes share without copies: ImageNet has 1,281,167."""

import array
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path

import numpy as np

_PATHS, _ENDS, _LABELS = "paths", "ends.npy", "labels.npy"


class Listing:
    """Paths and labels in memory-mapped temporary files.

    Pickles as the name of their folder, which the process that made the listing removes when it ends or lets go of it.
    """

    def __init__(self, entries: Iterable[tuple[str, int]]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="transdiff_jax_listing_"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        ends, labels = array.array("q", [0]), array.array("i")
        with (self._folder / _PATHS).open("wb") as file:
            for path, label in entries:
                file.write(os.fsencode(path))
                ends.append(file.tell())
                labels.append(label)
        np.save(self._folder / _ENDS, np.array(ends, np.int64))
        np.save(self._folder / _LABELS, np.array(labels, np.int32))
        self._open()

    def _open(self) -> None:
        self._ends = np.load(self._folder / _ENDS, mmap_mode="r")
        self.labels = np.load(self._folder / _LABELS, mmap_mode="r")  # int32 [len]
        # An empty file cannot be mapped.
        self._paths = np.memmap(self._folder / _PATHS, np.uint8, "r") if len(self) else np.zeros(0, np.uint8)

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        """Path number `index`, from 0."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return os.fsdecode(self._paths[self._ends[index] : self._ends[index + 1]].tobytes())

    def __getstate__(self) -> Path:
        return self._folder

    def __setstate__(self, folder: Path) -> None:
        self._folder = folder
        self._open()
