"""The Grain pipeline: source -> MRAR group -> transform -> batch; shuffled by epoch, resumable on any host count."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import grain
import numpy as np

from transdiff_jax import rng
from transdiff_jax.config import Config
from transdiff_jax.config.schema import LATENTS_PREFIX
from transdiff_jax.data.groups.groups import Groups, make_groups
from transdiff_jax.data.latents.source import LatentSource, one_flip, open_latents
from transdiff_jax.data.read_ahead import read_ahead
from transdiff_jax.data.same_records import check_same_records
from transdiff_jax.data.shares import WHOLE, RowsOfShare, Shares
from transdiff_jax.data.sources.base import Record, Source
from transdiff_jax.data.sources.open import class_names, open_source
from transdiff_jax.data.transforms import transform
from transdiff_jax.data.unreadable import UnreadableReport, read_members
from transdiff_jax.data.workers import end_with_parent, started_here
from transdiff_jax.errors import UserError
from transdiff_jax.storage.files import Json

FIRST_ROW = "global_next_index"  # of the next batch; its name in the state


class Row(TypedDict):
    """One training row; batches hold the same with a leading axis."""

    image: NotRequired[np.ndarray]  # uint8 [num_images, height, width, channels]
    moments: NotRequired[np.ndarray]  # instead, of cached latents: float16 or bfloat16 [num_images, h, w, 2c]
    label: np.int32
    index: np.ndarray  # int64 [num_images]: which records these are
    unreadable: np.ndarray  # int64 [num_images]: the record that could not be decoded and is replaced, or -1


class _RowLoader:
    """Makes a row from the records of its group; pickled into worker processes."""

    def __init__(self, config: Config, source: Source | LatentSource, groups: Groups) -> None:
        self._config, self._source, self._groups = config, source, groups

    def __call__(self, row: int, generator: np.random.Generator) -> Row:
        members = self._groups.members(row, generator)
        if isinstance(self._source, LatentSource):
            latents, found, replaced = read_members(self._source, members)
            moments = np.stack([one_flip(record, self._config.data.flip, generator) for record in latents])
            return Row(moments=moments, label=np.int32(latents[-1]["label"]), index=found, unreadable=replaced)
        records, found, replaced = read_members(self._source, members)
        images = [self._image(record, int(index), generator) for record, index in zip(records, found, strict=True)]
        label = np.int32(records[-1]["label"])
        return Row(image=np.stack(images), label=label, index=found, unreadable=replaced)

    def _image(self, record: Record, index: int, generator: np.random.Generator) -> np.ndarray:
        data, (height, width, _) = self._config.data, record["image"].shape
        if data.crop == "none" and (height, width) != (data.image_size, data.image_size):
            raise UserError(
                f"config.data.image_size={data.image_size} does not fit record {self._source.id(index)} of "
                f"config.data.source={data.source!r}, an image of {width}x{height}: set that size, or config.data.crop"
            )
        return transform(record["image"], data, generator)

    def __reduce__(self) -> tuple[Callable[..., "_RowLoader"], tuple[Config, Source | LatentSource, Groups]]:
        return _loader_of_worker, (self._config, self._source, self._groups)


def _loader_of_worker(config: Config, source: Source | LatentSource, groups: Groups) -> _RowLoader:
    end_with_parent()
    return _RowLoader(config, source, groups)


def open_records(config: Config, kept: Path | None = None) -> Source | LatentSource:
    """The images or cached latents that a configuration names.

    Arguments and errors are those of `open_source`, and errors those of `open_latents`.
    """
    if config.data.source.startswith(LATENTS_PREFIX):
        return open_latents(config)
    return open_source(config.data, kept)


def with_classes_of_data(config: Config) -> Config:
    """The configuration, with the number of classes of its data where it leaves that open (0).

    Raises:
        UserError: as `open_records`.
    """
    if config.model.num_classes:
        return config
    of_latents = config.data.source.startswith(LATENTS_PREFIX)
    count = len(open_latents(config).class_names if of_latents else class_names(config.data))
    return dataclasses.replace(config, model=dataclasses.replace(config.model, num_classes=count))


def training_rows(config: Config, source: Source | LatentSource) -> grain.MapDataset[Row]:
    """An endless, shuffled, random-access sequence of training rows; row i is a function of (seed, i).

    Raises:
        UserError: the data does not fit the configuration.
    """
    if len(source.class_names) != config.model.num_classes:
        raise UserError(
            f"config.model.num_classes={config.model.num_classes} must be {len(source.class_names)}, the number of "
            f"classes of config.data.source={config.data.source!r}"
        )
    groups = make_groups(config, source)
    load = _RowLoader(config, source, groups)
    load(0, np.random.default_rng(0))  # raises for data that does not fit, before anything is compiled
    seed = rng.integer_seed(config.seed, rng.DATA)
    return grain.MapDataset.range(len(groups)).seed(seed).shuffle().repeat().random_map(load)


class TrainingData:
    """An iterator over a share of each global batch, whose state is one number.

    The state counts global rows, so a run resumes with exactly the rows it would have seen, on any number of hosts and
    worker processes. Records that cannot be decoded are replaced, and reported in `workdir`.
    """

    def __init__(self, config: Config, workdir: Path, shares: Shares = WHOLE) -> None:
        source = open_records(config, workdir)
        check_same_records(source, f"config.data.source={config.data.source}")
        self.class_names = source.class_names
        self._report = UnreadableReport(workdir, source, config.data)
        self._config, self._shares = config, shares
        self._starting = started_here if config.data.workers else contextlib.nullcontext
        self._rows = training_rows(config, source)
        self._iterator = self._start(0)

    def _start(self, first: int) -> grain.DatasetIterator[Row]:
        """Chunks of the own rows, from the batch on that begins with row `first` of all."""
        data, rows = self._config.data, RowsOfShare(self._rows, self._config.train.batch_size, self._shares, first)
        self._first, self._size = first, rows.rows
        plan = read_ahead(rows.rows, data)
        chunks = rows.batch(plan.chunk, drop_remainder=True).to_iter_dataset(
            grain.ReadOptions(num_threads=plan.threads, prefetch_buffer_size=plan.chunks)
        )
        if data.workers:
            chunks = chunks.mp_prefetch(grain.MultiprocessingOptions(num_workers=data.workers))
        return iter(chunks)

    def __next__(self) -> dict[str, np.ndarray]:
        """The fields of `Row` except unreadable, with a leading axis."""
        with self._starting():
            batch = self._assembled()
        self._first += self._config.train.batch_size
        self._report.add(batch.pop("unreadable"))
        return batch

    def _assembled(self) -> dict[str, np.ndarray]:
        """The next batch, into which chunks are copied as they come: a list of them would be a second batch."""
        batch: dict[str, np.ndarray] = {}
        filled = 0
        while filled < self._size:
            chunk = cast(dict[str, np.ndarray], next(self._iterator))
            places = slice(filled, filled + len(chunk["label"]))
            for name, values in chunk.items():
                if name not in batch:
                    batch[name] = np.empty((self._size, *values.shape[1:]), values.dtype)
                batch[name][places] = values
            filled = places.stop
        return batch

    def get_state(self) -> Json:
        """A JSON value from which `set_state` continues."""
        return {FIRST_ROW: self._first}

    def set_state(self, state: Json) -> None:
        """Continues after the rows that preceded `state`, whatever the batch size and the processes were.

        Raises:
            UserError: the state is none of this class.
        """
        if set(state) != {FIRST_ROW}:
            raise UserError(f"the data state {str(state)[:80]} is none of this version; train in another workdir")
        self._iterator.close()
        self._iterator = self._start(state[FIRST_ROW])

    def close(self) -> None:
        """Stops the reading threads and processes."""
        self._iterator.close()
