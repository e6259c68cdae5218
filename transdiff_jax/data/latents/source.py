"""Random access to cached latents, and the check that they fit a run."""

import bisect
import itertools
import os
from pathlib import Path
from typing import TypedDict

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from transdiff_jax.config import Config
from transdiff_jax.config.schema import LATENTS_PREFIX
from transdiff_jax.data.latents.format import (
    Manifest,
    check_sizes,
    damaged,
    read_ids,
    read_labels,
    read_manifest,
    shard_name,
)
from transdiff_jax.data.shared_arrays import SharedArrays
from transdiff_jax.errors import UserError
from transdiff_jax.storage.paths import location
from transdiff_jax.tokenizer.kl16_weights import weights_digest

# Suited to random access: no reading ahead, no threads, a buffer of about one record.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_READER_BUFFER = 32 * 1024


class LatentRecord(TypedDict):
    """The moments of one image."""

    moments: np.ndarray  # float16 or bfloat16 [2, h, w, 2c]: of the image and of its mirror image; read-only
    label: int


class LatentSource:
    """The records of a folder that `transdiff cache_latents` made.

    A file is opened when it is first read, in the process that reads it. So the source can be pickled, and any number
    of threads may read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: Manifest = read_manifest(folder)
        self.class_names = self.manifest.settings.class_names
        check_sizes(folder, self.manifest)
        self._labels = SharedArrays(read_labels(folder, self.manifest))
        self._ids: list[str] | None = None  # read on first use
        self._ends = list(itertools.accumulate(shard.records for shard in self.manifest.shards))
        self._shape, self._dtype = self.manifest.settings.shape, self.manifest.settings.record_dtype
        self._readers: dict[tuple[int, int], ArrayRecordReader] = {}  # by process and file

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_readers": {}, "_ids": None}

    def __len__(self) -> int:
        return len(self.labels())

    def __getitem__(self, index: int) -> LatentRecord:
        """Record `index`.

        Raises:
            UserError: its file is damaged, which ArrayRecord sees by a checksum of each record.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        shard = bisect.bisect_right(self._ends, index)
        position = index - (self._ends[shard - 1] if shard else 0)
        try:
            (data,) = self._reader(shard).read([position])
        except RuntimeError as error:
            raise damaged(self._path(shard), str(error).splitlines()[0]) from None
        return LatentRecord(moments=np.frombuffer(data, self._dtype).reshape(self._shape), label=self.label(index))

    def label(self, index: int) -> int:
        """Class of a record."""
        return int(self.labels()[index])

    def labels(self, records: range | None = None) -> np.ndarray:
        """See `Labelled`; reads no latents."""
        labels = self._labels.arrays[0]
        return labels if records is None else labels[records.start : records.stop]

    def id(self, index: int) -> str:
        """The id of a record in the source of its image.

        Raises:
            UserError: the file of ids is damaged.
        """
        if self._ids is None:
            self._ids = read_ids(self.folder, self.manifest)
        return self._ids[index]

    def labels_and_ids(self) -> tuple[np.ndarray, list[str]]:
        """See `Labelled`; raises like `id`."""
        return self.labels(), [self.id(index) for index in range(len(self))]

    def _path(self, shard: int) -> Path:
        return self.folder / shard_name(shard, len(self._ends))

    def _reader(self, shard: int) -> ArrayRecordReader:
        key = os.getpid(), shard  # a forked process must not share a file's position with its parent
        reader = self._readers.get(key)
        if reader is None:
            path, records = self._path(shard), self.manifest.shards[shard].records
            reader = ArrayRecordReader(str(path), _READER_OPTIONS, file_reader_buffer_size=_READER_BUFFER)
            if reader.num_records() != records:  # it finds 0 in a file that it does not understand
                raise damaged(path, f"it has {reader.num_records()} readable records instead of {records}")
            reader = self._readers.setdefault(key, reader)
        return reader


def open_latents(config: Config) -> LatentSource:
    """The cached latents that a configuration names.

    Raises:
        UserError: the folder is not complete or is damaged, or its latents do not fit the configuration.
    """
    folder = location(config.data.source.removeprefix(LATENTS_PREFIX), "config.data.source")
    source = LatentSource(folder)
    _check_weights(folder, source.manifest.settings.tokenizer_sha256, config.tokenizer.weights)
    made = source.manifest.settings
    _, latent_size, _, channels = made.shape
    for field, asked, found in (
        ("config.data.image_size", config.data.image_size, made.image_size),
        ("config.data.crop", config.data.crop, made.crop),
        ("config.data.split", config.data.split, made.split),
        ("config.model.latent_size", config.model.latent_size, latent_size),
        ("config.model.latent_channels", config.model.latent_channels, channels // 2),
    ):
        if asked != found:
            raise UserError(
                f"{field}={asked} must be {found}, with which config.data.source={config.data.source} was made"
            )
    return source


def _check_weights(folder: Path, made_with: str, weights: str) -> None:
    digest = weights_digest(weights)
    if digest != made_with:
        raise UserError(
            f"config.data.source=latents:{folder} was made with the KL-16 weights of digest {made_with[:12]}…, but "
            f"config.tokenizer.weights={weights} has digest {digest[:12]}…: name the weights that it was made with, or "
            "cache latents anew with transdiff cache_latents"
        )


def one_flip(record: LatentRecord, flip: bool, generator: np.random.Generator) -> np.ndarray:
    """The moments [h, w, 2c] of the image; with `flip`, those of the image or of its mirror image at random."""
    mirrored = flip and generator.random() < 0.5
    return record["moments"][int(mirrored)]
