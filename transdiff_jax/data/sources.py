"""Random access to labelled images, one interface for every origin."""

from pathlib import Path
from typing import Protocol, TypedDict

import numpy as np
import tensorflow_datasets as tfds

from transdiff_jax.config import DataConfig
from transdiff_jax.data.digits import prepare_digits
from transdiff_jax.errors import UserError


class Record(TypedDict):
    """One labelled image."""

    image: np.ndarray  # uint8 [height, width, channels]
    label: int


class Source(Protocol):
    """A finite, ordered collection of records."""

    num_classes: int

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...

    def labels(self) -> np.ndarray:
        """Class of every record, int32 [len], without reading images."""


class TfdsSource:
    """A prepared image-classification dataset of TFDS in ArrayRecord files."""

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str) -> None:
        if split not in builder.info.splits:
            known = ", ".join(sorted(builder.info.splits))
            raise UserError(f"config.data.split={split!r} is not a split of {builder.info.name}; it has {known}")
        self.num_classes = builder.info.features["label"].num_classes
        self._records = builder.as_data_source(split=split)
        self._labels_only = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        record = self._records[index]
        return Record(image=record["image"], label=int(record["label"]))

    def labels(self) -> np.ndarray:
        """See `Source`."""
        return np.array([record["label"] for record in self._labels_only], np.int32)


def open_source(config: DataConfig) -> Source:
    """The records that a configuration names.

    Raises:
        UserError: the dataset or its split does not exist, or its directory cannot be used.
    """
    directory = Path(config.directory).expanduser()
    try:
        builder = prepare_digits(str(directory))
    except OSError as error:
        raise UserError(f"config.data.directory={config.directory!r} cannot hold the dataset: {error}") from None
    return TfdsSource(builder, config.split)
