"""MRAR groups: which images of a class form one sequence, and in which order."""

from typing import Protocol

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from transdiff_jax.config import Config
from transdiff_jax.config.schema import INDEX_PREFIX
from transdiff_jax.data.groups.index import IndexedGroups
from transdiff_jax.data.shared_arrays import SharedArrays
from transdiff_jax.data.sources.base import Labelled
from transdiff_jax.errors import UserError
from transdiff_jax.parallel.processes import check_same
from transdiff_jax.storage.paths import location

_NAMED = 5  # classes in a message


class Groups(Protocol):
    """The training rows of an epoch; they pickle small, because worker processes receive them."""

    def __len__(self) -> int: ...

    def members(self, row: int, generator: np.random.Generator) -> np.ndarray:
        """Record indices [num_images] of a row, in the order of its sequence."""
        ...


class SingleRecords:
    """Each record is a sequence of one image."""

    def __init__(self, records: int) -> None:
        self._records = records

    def __len__(self) -> int:
        return self._records

    def members(self, row: int, generator: np.random.Generator) -> np.ndarray:
        """See `Groups`."""
        del generator
        return np.array([row])


class RandomGroups:
    """Random groups of one class without repeats inside a group.

    Every record ends one group an epoch (the last image of a sequence is the one that sees all others); its earlier
    images are drawn anew each time.

    Args:
        labels: class of each record.
        num_images: of a group.
        small_classes: what happens to classes of fewer images, as in `DataConfig.small_classes`.

    Raises:
        UserError: there are such classes and `small_classes` is "error", or no class is left.
    """

    def __init__(self, labels: np.ndarray, num_images: int, small_classes: str = "error") -> None:
        self._num_images = num_images
        counts = np.bincount(labels)
        small = np.flatnonzero((counts > 0) & (counts < num_images))
        rows = np.arange(len(labels), dtype=np.int64)
        if len(small):
            _report_small(small, counts, num_images, small_classes)
        if small_classes == "skip":
            rows = rows[~np.isin(labels, small)]
        if not len(rows):
            raise UserError(
                f"no class has config.model.num_images={num_images} images, so config.data.small_classes=skip leaves "
                "none: use a larger split or fewer images"
            )
        # The records of a class are a run of `order`, which begins where the run of the class before it ends.
        order = np.argsort(labels, kind="stable").astype(np.int64)
        starts = np.append(0, np.cumsum(counts)).astype(np.int64)
        self._shared = SharedArrays(rows, labels.astype(np.int32), order, starts)

    def __len__(self) -> int:
        return len(self._shared.arrays[0])

    def ends(self) -> np.ndarray:
        """The record that ends each row's group, int64 [len]."""
        return self._shared.arrays[0]

    def members(self, row: int, generator: np.random.Generator) -> np.ndarray:
        """See `Groups`."""
        rows, labels, order, starts = self._shared.arrays
        index = int(rows[row])
        own = order[starts[labels[index]] : starts[labels[index] + 1]]
        others, wanted = own[own != index], self._num_images - 1
        if len(others) >= wanted:
            return np.append(generator.choice(others, wanted, replace=False), index)
        # All images of the class, and some of them again.
        return np.append(generator.permutation(np.resize(generator.permutation(own), wanted)), index)


def _report_small(small: np.ndarray, counts: np.ndarray, num_images: int, action: str) -> None:
    shown = ", ".join(f"class {label} has {counts[label]}" for label in small[:_NAMED].tolist())
    more = f" and {len(small) - _NAMED} more" if len(small) > _NAMED else ""
    found = f"{len(small)} class(es) have fewer than config.model.num_images={num_images} images ({shown}{more})"
    if action == "error":
        raise UserError(
            f"{found}: use a larger split or fewer images, or set config.data.small_classes to skip or repeat"
        )
    logging.warning("%s: %s", found, "left out" if action == "skip" else "images repeat within their groups")


def _labels_of_job(source: Labelled) -> np.ndarray:
    """`source.labels()`; each process reads a part, because some sources read whole images for their labels."""
    processes = jax.process_count()
    if processes == 1:
        return source.labels()
    check_same(
        str(len(source)),
        "config.data.source does not have the same number of records in all processes of this job: give all the same",
    )
    size = -(-len(source) // processes)
    own, error = range(len(source))[jax.process_index() * size :][:size], None
    part = np.zeros(size + 1, np.int32)  # the last parts may be shorter; the last entry says whether reading failed
    try:
        part[: len(own)] = source.labels(own)
    except UserError as caught:
        # Raised only after the exchange below, in which the other processes wait for this one.
        part[size], error = 1, caught
    parts = multihost_utils.process_allgather(part)
    if error is not None:
        raise error
    if parts[:, size].any():
        raise UserError(f"process {parts[:, size].argmax()} could not read its part of the labels: its output says why")
    return parts[:, :size].reshape(-1)[: len(source)]


def make_groups(config: Config, source: Labelled) -> Groups:
    """The groups that a configuration asks for; every process of a job must call this.

    Raises:
        UserError: as from `IndexedGroups` or `RandomGroups`; or another process could not read its part of the labels,
            or has another number of records.
    """
    num_images, groups = config.model.num_images, config.data.groups
    if groups.startswith(INDEX_PREFIX):
        return IndexedGroups(location(groups.removeprefix(INDEX_PREFIX), "config.data.groups"), source, num_images)
    if num_images == 1:
        return SingleRecords(len(source))
    return RandomGroups(_labels_of_job(source), num_images, config.data.small_classes)
