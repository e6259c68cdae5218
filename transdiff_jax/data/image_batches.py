"""Reads and transforms the images of some ranges of a source in threads, in order and in batches."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TypeVar

import numpy as np
from absl import logging

from transdiff_jax.config import DataConfig
from transdiff_jax.data.sources.base import Source
from transdiff_jax.data.transforms import transform
from transdiff_jax.errors import UserError
from transdiff_jax.images.decoding import UnreadableImage

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class ImageBatch:
    """Images of one range."""

    number: int  # of the range
    ids: list[str]  # of the images
    labels: list[int]
    skipped: list[str]  # ids of unreadable records met since the batch before
    images: np.ndarray | None  # uint8 [size, height, width, c]; the last image fills it up; None without images


def read_batches(
    source: Source, config: DataConfig, ranges: Mapping[int, range], size: int
) -> Generator[ImageBatch, None, None]:
    """Yields all images of each range of records in turn, without flips.

    Args:
        source: the images.
        config: the transform, which must not be random, and the number of threads.
        ranges: of records, by number; no batch holds images of two ranges.
        size: images of a batch; the last batch of a range is filled up, and comes even if no image is left for it.

    Raises:
        UserError: an image does not have the configured size.
    """
    indices = itertools.chain.from_iterable(ranges.values())
    read = functools.partial(_read, source, dataclasses.replace(config, flip=False))
    with contextlib.closing(_read_ahead(read, indices, config.read_threads, 2 * size)) as results:
        for number, records in ranges.items():
            kept, skipped = [], []
            for _ in records:
                if len(kept) == size:
                    yield _batch(number, kept, skipped, size)
                    kept, skipped = [], []
                name, found = next(results)
                if found is None:
                    skipped.append(name)
                else:
                    kept.append((name, *found))
            yield _batch(number, kept, skipped, size)


def _batch(number: int, kept: list[tuple[str, np.ndarray, int]], skipped: list[str], size: int) -> ImageBatch:
    if not kept:
        return ImageBatch(number, [], [], skipped, None)
    ids, images, labels = (list(column) for column in zip(*kept, strict=True))
    filled = np.stack(images + images[-1:] * (size - len(images)))
    return ImageBatch(number, ids, labels, skipped, filled)


def _read(source: Source, config: DataConfig, index: int) -> tuple[str, tuple[np.ndarray, int] | None]:
    """The id of a record, with its transformed image and its class, or with None if it is unreadable."""
    try:
        record = source[index]
    except UnreadableImage as error:
        name = source.id(index)
        logging.warning("record %s is unreadable: %s", name, error)
        return name, None
    image = transform(record["image"], config, np.random.default_rng(0))  # this transform draws nothing
    expected = (config.image_size, config.image_size, config.image_channels)
    if image.shape != expected:
        raise UserError(
            f"record {record['id']} of config.data.source={config.source!r} has shape {image.shape}, not "
            f"{expected} as config.data.image_size and image_channels say; config.data.crop=center brings images of "
            "any size to that size"
        )
    return record["id"], (image, record["label"])


def _read_ahead(
    read: Callable[[int], Result], indices: Iterator[int], threads: int, depth: int
) -> Generator[Result, None, None]:
    """Yields `read` of each index in order, computed in threads at most `depth` ahead."""
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    try:
        waiting = collections.deque(pool.submit(read, index) for index in itertools.islice(indices, depth))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(read, index) for index in itertools.islice(indices, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
