"""Mean and covariance of features that arrive piece by piece, in float64 on the host.

Devices compute features and no sums: float32 sums would depend on the batch and on the number of devices. Here rows
are collected into blocks of fixed length, whatever the batches were, and blocks are joined by deviations from their
own means (Chan, Golub & LeVeque, 1979), which loses nothing to a mean that is large beside the spread.
"""

from typing import NamedTuple

import numpy as np
from absl import logging

from transdiff_jax.errors import UserError
from transdiff_jax.parallel.processes import is_first

BLOCK = 1024  # rows: few enough for memory, and enough that joining a block costs less than its product


class Gaussian(NamedTuple):
    """Mean [d] and covariance [d, d] of a set of features, float64."""

    mean: np.ndarray
    covariance: np.ndarray


class _Moments(NamedTuple):
    """A set's size, mean [d] and sum of outer products of deviations from that mean [d, d]."""

    count: int
    mean: np.ndarray
    scatter: np.ndarray


class FeatureStatistics:
    """Streaming mean and covariance.

    The same rows give the same result to the last bit in batches of any size, and to rounding (1e-12) in any order and
    over any number of merged parts.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._moments = _Moments(0, np.zeros(width), np.zeros((width, width)))
        self._pending: list[np.ndarray] = []
        self._pending_rows = 0

    @property
    def count(self) -> int:
        """Rows so far."""
        return self._moments.count + self._pending_rows

    def add(self, features: np.ndarray) -> None:
        """Takes [n, width] features.

        Raises:
            ValueError: features of another shape.
        """
        if features.ndim != 2 or features.shape[1] != self.width:
            raise ValueError(f"features must be [n, {self.width}], got {features.shape}")
        rows = np.array(features, np.float64)  # a copy: the caller's may change
        self._pending.append(rows)
        self._pending_rows += len(rows)
        if self._pending_rows >= BLOCK:
            rows = np.concatenate(self._pending)
            whole = len(rows) - len(rows) % BLOCK
            for start in range(0, whole, BLOCK):
                self._moments = _join(self._moments, _moments_of(rows[start : start + BLOCK]))
            self._pending, self._pending_rows = [rows[whole:].copy()], len(rows) - whole

    def merge(self, other: "FeatureStatistics") -> None:
        """Takes all that `other` has taken (the part of another process, for instance), which stays as it is.

        Raises:
            ValueError: features of another width.
        """
        if other.width != self.width:
            raise ValueError(f"features differ in width: {self.width} and {other.width}")
        self._moments = _join(self._moments, other._moments)
        for rows in other._pending:
            self.add(rows)

    def gaussian(self, source: str) -> Gaussian:
        """Mean and unbiased covariance (N - 1) of all rows so far.

        Warns if there are too few for the covariance to be of full rank.

        Args:
            source: what to call the set in an error or a warning.

        Raises:
            UserError: fewer than two rows, or features that are not finite.
        """
        if self.count < 2:
            raise UserError(f"{source}: a covariance needs at least 2 images, there are {self.count}")
        count, mean, scatter = self._moments
        if self._pending_rows:
            count, mean, scatter = _join(self._moments, _moments_of(np.concatenate(self._pending)))
        if not np.isfinite(mean).all() or not np.isfinite(scatter).all():
            raise UserError(f"{source}: features are not finite; are the network's weights right?")
        if (warning := rank_warning(count, self.width)) and is_first():  # all processes have the same statistics
            logging.warning("%s: %s", source, warning)
        return Gaussian(mean.copy(), scatter / (count - 1))


def rank_warning(count: int, width: int) -> str | None:
    """What it means that there are too few rows for a covariance of full rank; None if there are enough."""
    if count > width:
        return None
    return (
        f"{count} images for features of width {width}: the covariance is singular, and Fréchet distances made with it "
        "are too large by an amount that depends on the number of images: do not compare them with others"
    )


def fit_gaussian(features: np.ndarray, source: str) -> Gaussian:
    """Mean and covariance of [n, d] features that are there at once; `source` and errors as `gaussian`."""
    statistics = FeatureStatistics(features.shape[1])
    statistics.add(features)
    return statistics.gaussian(source)


def _moments_of(rows: np.ndarray) -> _Moments:
    mean = rows.mean(axis=0)
    deviations = rows - mean
    return _Moments(len(rows), mean, deviations.T @ deviations)


def _join(a: _Moments, b: _Moments) -> _Moments:
    if not a.count or not b.count:
        return b if b.count else a
    count = a.count + b.count
    shift = b.mean - a.mean
    mean = a.mean + shift * (b.count / count)
    return _Moments(count, mean, a.scatter + b.scatter + np.outer(shift, shift) * (a.count * b.count / count))
