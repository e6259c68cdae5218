"""What every source of images offers."""

from typing import Protocol, TypedDict

import numpy as np


class Record(TypedDict):
    """One labelled image."""

    image: np.ndarray  # uint8 [height, width, channels]
    label: int
    id: str  # as `Labelled.id` gives it


class Labelled(Protocol):
    """What all sources offer, of images or of latents: finite, ordered, pickled to something small for workers."""

    class_names: tuple[str, ...]  # of class 0, 1, ...

    def __len__(self) -> int: ...

    def label(self, index: int) -> int:
        """Class of a record."""
        ...

    def labels(self, records: range | None = None) -> np.ndarray:
        """Class of every record, or of every one of `records` (of step 1), int32 [len]."""
        ...

    def id(self, index: int) -> str:
        """A stable name of a record, for reports and MRAR index files."""
        ...

    def labels_and_ids(self) -> tuple[np.ndarray, list[str]]:
        """`labels`, and `id` of every record, in one pass over them."""
        ...


class Source(Labelled, Protocol):
    """A collection of images."""

    def __getitem__(self, index: int) -> Record:
        """Reads and decodes a record; raises UnreadableImage if its image cannot be decoded."""
        ...
