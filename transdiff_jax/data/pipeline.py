"""The Grain pipeline: source -> MRAR group -> transform -> batch, shuffled by epoch and resumable on any host count."""

from collections.abc import Callable
from typing import Any, Literal, NotRequired, TypedDict

import grain
import jax
import numpy as np

from transdiff_jax import rng
from transdiff_jax.config import Config
from transdiff_jax.config.schema import LATENTS_PREFIX
from transdiff_jax.data.latents import LatentSource, one_flip, open_latents
from transdiff_jax.data.references import ReferenceGroups
from transdiff_jax.data.sources import Source, open_source
from transdiff_jax.data.transforms import transform
from transdiff_jax.errors import UserError

Prepare = Callable[[Any, np.random.Generator], np.ndarray]  # of one record


class Row(TypedDict):
    """One training row; batches hold the same with a leading axis."""

    image: NotRequired[np.ndarray]  # float32 [num_images, height, width, channels] in [-1, 1]
    moments: NotRequired[np.ndarray]  # in its place, of cached latents: float16 or bfloat16 [num_images, h, w, 2c]
    label: np.ndarray  # int32 scalar
    index: np.ndarray  # int64 [num_images]: which records these are


def _check_source(source: Source, config: Config) -> None:
    data, model = config.data, config.model
    expected = (data.image_size, data.image_size, data.image_channels)
    found = source[0]["image"].shape
    if data.crop != "none":  # which makes any size the right one
        found = (*expected[:2], found[2])
    if found != expected:
        raise UserError(
            f"config.data.image_size={data.image_size} and image_channels={data.image_channels} do not fit the "
            f"images of config.data.source={data.source!r}, which are {source[0]['image'].shape}"
        )
    if source.num_classes != model.num_classes:
        raise UserError(
            f"config.model.num_classes={model.num_classes} must be {source.num_classes}, the number of classes of "
            f"config.data.source={data.source!r}"
        )


def _open(config: Config) -> tuple[Source | LatentSource, Literal["image", "moments"], Prepare]:
    """Where records come from, what a row calls what it takes from each, and the function that makes it."""
    if config.data.source.startswith(LATENTS_PREFIX):
        source = open_latents(config)
        return source, "moments", lambda record, generator: one_flip(record, config.data.flip, generator)
    source = open_source(config.data)
    _check_source(source, config)
    return source, "image", lambda record, generator: transform(record["image"], config.data, generator)


def training_rows(config: Config) -> grain.MapDataset:
    """An endless, shuffled, random-access sequence of training rows; row i is a function of (seed, i).

    Raises:
        UserError: the data does not fit the configuration.
    """
    source, name, prepare = _open(config)
    groups = ReferenceGroups(source.labels(), config.model.num_images) if config.model.num_images > 1 else None

    def load(index: int, generator: np.random.Generator) -> Row:
        members = np.array([index]) if groups is None else groups.group(index, generator)
        records = [source[int(member)] for member in members]
        prepared = np.stack([prepare(record, generator) for record in records])
        return Row(**{name: prepared}, label=np.int32(records[-1]["label"]), index=members.astype(np.int64))

    seed = rng.integer_seed(config.seed, rng.DATA)
    return grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat().random_map(load)


class TrainingData:
    """An iterator over this process's share of global batches, whose state is one number.

    The state counts global rows, so a run resumes with exactly the rows it would have seen, on any number of hosts.
    """

    def __init__(self, config: Config) -> None:
        shard = grain.sharding.ShardOptions(jax.process_index(), jax.process_count())
        threads = config.data.read_threads
        self._iterator = iter(
            grain.experimental.ElasticIterator(
                training_rows(config),
                config.train.batch_size,
                shard,
                read_options=grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads),
            )
        )

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self._iterator)

    def get_state(self) -> dict[str, Any]:
        """A JSON value from which `set_state` continues."""
        return self._iterator.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues after the batches that `state` had seen."""
        self._iterator.set_state(state)

    def close(self) -> None:
        """Stops the reading threads."""
        self._iterator.close()
