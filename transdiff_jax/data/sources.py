"""Random access to labelled images, one interface for every origin."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypedDict

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.json_format import ParseError

from transdiff_jax.config import DataConfig
from transdiff_jax.config.schema import TFDS_PREFIX
from transdiff_jax.data.digits import prepare_digits
from transdiff_jax.errors import UserError


class UnreadableImage(ValueError):  # noqa: N818 (says what the record is)
    """A record whose image cannot be decoded; raised by a source's `[index]`."""


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
        """Class of every record, int32 [len]."""


class TfdsSource:
    """A prepared image-classification dataset of TFDS in ArrayRecord files."""

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str) -> None:
        if split not in builder.info.splits:
            known = ", ".join(sorted(builder.info.splits))
            raise UserError(f"config.data.split={split!r} is not a split of {builder.info.name}; it has {known}")
        self.num_classes = builder.info.features["label"].num_classes
        self._place = builder.data_path
        self._records = builder.as_data_source(split=split)
        self._without_images = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        record = self._read(self._records, index)
        return Record(image=record["image"], label=int(record["label"]))

    def labels(self) -> np.ndarray:
        """See `Source`; images are read from disk, but not decoded."""
        return np.array([self._read(self._without_images, i)["label"] for i in range(len(self))], np.int32)

    def _read(self, records: Sequence[Any], index: int) -> dict[str, Any]:
        try:
            return records[index]
        except RuntimeError as error:  # of ArrayRecord: a wrong checksum, or a file that ends early
            raise damaged(self._place, error) from None


def damaged(place: str | Path, error: Exception) -> UserError:
    """The error of a dataset whose files cannot be read as they should."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return UserError(f"the dataset in {place} is damaged ({reason}): delete that folder and prepare it again")


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
    except (ParseError, AssertionError, RuntimeError) as error:  # what TFDS raises for files that make no sense to it
        raise damaged(directory, error) from None


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
