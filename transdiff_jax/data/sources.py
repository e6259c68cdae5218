"""Random access to labelled images, one interface for every origin."""

from pathlib import Path
from typing import Protocol, TypedDict

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.json_format import ParseError

from transdiff_jax.config import TFDS_PREFIX, DataConfig
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
        labels_only = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        self._labels = np.array([record["label"] for record in labels_only], np.int32)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        record = self._records[index]
        return Record(image=record["image"], label=int(record["label"]))

    def labels(self) -> np.ndarray:
        """See `Source`."""
        return self._labels


def open_source(config: DataConfig) -> Source:
    """The records that a configuration names.

    Raises:
        UserError: the dataset or its split does not exist, is not prepared, or its directory cannot be used.
    """
    directory = Path(config.directory).expanduser()
    try:
        if config.source == "digits":
            builder = prepare_digits(str(directory))
        else:
            builder = _prepared_builder(config.source.removeprefix(TFDS_PREFIX), directory)
        return TfdsSource(builder, config.split)
    except OSError as error:
        raise UserError(f"config.data.directory={config.directory!r} cannot hold the dataset: {error}") from None
    except (ParseError, RuntimeError) as error:  # RuntimeError: ArrayRecord's, of a wrong checksum or an early end
        raise UserError(
            f"the dataset {config.source!r} in {directory} is damaged ({str(error).splitlines()[0]}): delete its "
            "folder and prepare it again"
        ) from None


def _prepared_builder(name: str, directory: Path) -> tfds.core.DatasetBuilder:
    try:
        builder = tfds.builder(name, data_dir=str(directory), file_format="array_record")
    except tfds.core.DatasetNotFoundError:
        raise UserError(f"config.data.source='{TFDS_PREFIX}{name}': TFDS knows no dataset of that name") from None
    if not builder.is_prepared():
        raise UserError(
            f"config.data.source='{TFDS_PREFIX}{name}' is not prepared in {directory} (config.data.directory): first "
            f"run `tfds build {name} --file_format=array_record --data_dir={directory}`, which needs TensorFlow"
        )
    if not {"image", "label"} <= set(builder.info.features or ()):
        raise UserError(f"config.data.source='{TFDS_PREFIX}{name}' has no features named image and label")
    return builder
