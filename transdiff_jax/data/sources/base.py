"""The interfaces of sources of records."""

from typing import Protocol, TypedDict, TypeVar

import numpy as np

AnyRecord = TypeVar("AnyRecord", covariant=True)


class Record(TypedDict):
    """One labelled image."""

    image: np.ndarray  # uint8 [height, width, channels]
    label: int
    id: str  # the result of `Labelled.id`


class Labelled(Protocol):
    """A finite, ordered collection of images or latents; it pickles small, because worker processes receive it."""

    class_names: tuple[str, ...]  # of class 0, 1, ...

    def __len__(self) -> int: ...

    def label(self, index: int) -> int:
        """Class of a record."""
        ...

    def labels(self, records: range | None = None) -> np.ndarray:
        """Class of every record, or of those in `records` (a range of step 1), int32 [len]."""
        ...

    def id(self, index: int) -> str:
        """A stable name of a record, for reports and MRAR index files."""
        ...

    def labels_and_ids(self) -> tuple[np.ndarray, list[str]]:
        """`labels`, and the `id` of every record, in one pass over the records."""
        ...


class Records(Labelled, Protocol[AnyRecord]):
    """A collection whose records can be read."""

    def __getitem__(self, index: int) -> AnyRecord:
        """Reads and decodes a record; raises UnreadableImage if its image cannot be decoded."""
        ...


class Source(Records[Record], Protocol):
    """A collection of labelled images."""
