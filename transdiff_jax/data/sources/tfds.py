"""Reads datasets that TFDS has prepared in ArrayRecord files."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from transdiff_jax.data.sources.base import Record
from transdiff_jax.data.sources.imagenet import readable_names
from transdiff_jax.errors import UserError
from transdiff_jax.images.decoding import decode

_RECORDS_AT_ONCE = 256  # which ArrayRecord reads in parallel; 30 MB of ImageNet
Features = Mapping[str, Any]  # protocol buffers by name: each is a list of values of its kind


class TfdsSource:
    """A split of a prepared TFDS dataset for image classification.

    Records are read without TFDS's own decoding, which is slow and handles fewer kinds of images than ours.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, channels: int) -> None:
        if split not in builder.info.splits:
            known = ", ".join(sorted(builder.info.splits))
            raise UserError(f"config.data.split={split!r} is not a split of {builder.info.name}; it has {known}")
        _check_features(builder)
        self.class_names = readable_names(builder.info.features["label"].names)
        self._has_file_names = "file_name" in builder.info.features
        self._place, self._split, self._channels = builder.data_path, split, channels
        # Without TFDS's wrapper, the records pickle as a few file names.
        raw = builder.as_data_source(split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        self._records = raw.data_source

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        """See `Records`."""
        features = self._features(index)
        label = self._label(features, index)
        name = _file_name(features) if self._has_file_names else self._numbered(index)
        return Record(image=decode(features["image"].bytes_list.value[0], self._channels), label=label, id=name)

    def label(self, index: int) -> int:
        """See `Labelled`; reads the record from disk, but does not decode its image."""
        return self._label(self._features(index), index)

    def labels(self, records: range | None = None) -> np.ndarray:
        """See `Labelled`; reads the records from disk, but decodes no image."""
        records = range(len(self)) if records is None else records
        labels = (self._label(features, index) for index, features in self._features_of(records))
        return np.fromiter(labels, np.int32, len(records))

    def id(self, index: int) -> str:
        """The feature file_name if the dataset has one, else "SPLIT/INDEX"."""
        return _file_name(self._features(index)) if self._has_file_names else self._numbered(index)

    def labels_and_ids(self) -> tuple[np.ndarray, list[str]]:
        """See `Labelled`; reads all records from disk, but decodes no image."""
        if not self._has_file_names:
            return self.labels(), [self._numbered(index) for index in range(len(self))]
        labels, ids = np.empty(len(self), np.int32), []
        for index, features in self._features_of(range(len(self))):
            labels[index] = self._label(features, index)
            ids.append(_file_name(features))
        return labels, ids

    def _features_of(self, records: range) -> Iterator[tuple[int, Features]]:
        for start in range(0, len(records), _RECORDS_AT_ONCE):
            indices = records[start : start + _RECORDS_AT_ONCE]
            with self._damage_in_one_line():
                found = self._records.__getitems__(indices)
            yield from zip(indices, map(_parse, found), strict=True)

    def _features(self, index: int) -> Features:
        with self._damage_in_one_line():
            record = self._records[index]
        return _parse(record)

    def _numbered(self, index: int) -> str:
        return f"{self._split}/{index}"

    def _label(self, features: Features, index: int) -> int:
        label = features["label"].int64_list.value[0]
        if not 0 <= label < len(self.class_names):
            raise UserError(
                f"record {index} of split {self._split} in {self._place} has no class: choose another split"
            )
        return label

    @contextlib.contextmanager
    def _damage_in_one_line(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # from ArrayRecord: a wrong checksum, or a file that ends early
            raise damaged(self._place, error) from None


def damaged(place: str | Path, error: Exception) -> UserError:
    """The error for a dataset whose files cannot be read."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return UserError(f"the dataset in {place} is damaged ({reason}): delete that folder and prepare it again")


def _parse(record: bytes) -> Features:
    # pyrefly: ignore[missing-attribute]  # generated code, whose classes are made when it is imported
    return tf_example_pb2.Example.FromString(record).features.feature


def _file_name(features: Features) -> str:
    return features["file_name"].bytes_list.value[0].decode()


def _check_features(builder: tfds.core.DatasetBuilder) -> None:
    features = dict((builder.info.features or {}).items())
    image, label = features.get("image"), features.get("label")
    if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
        raise UserError(
            f"{builder.info.name} has no image and label: config.data.source must be a dataset for classification"
        )
    if image.np_dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"images of {builder.info.name} are {image.np_dtype}, but only 8 and 16 bits can be read: name another "
            "dataset as config.data.source"
        )
