"""What every source of images offers."""

from typing import Protocol, TypedDict

import numpy as np


class Record(TypedDict):
    """One labelled image."""

    image: np.ndarray  # uint8 [height, width, channels]
    label: int


class Source(Protocol):
    """A finite, ordered collection of records, which pickles to something small for worker processes."""

    class_names: tuple[str, ...]  # of class 0, 1, ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """Reads and decodes a record; raises UnreadableImage if its image cannot be decoded."""
        ...

    def label(self, index: int) -> int:
        """Class of a record."""
        ...

    def labels(self) -> np.ndarray:
        """Class of every record, int32 [len]."""
        ...

    def id(self, index: int) -> str:
        """A stable name of a record, for reports."""
        ...
