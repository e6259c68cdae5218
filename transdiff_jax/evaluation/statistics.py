"""Mean and covariance of features that arrive piece by piece, in float64 on the host.

Devices compute features but no sums: float32 sums would depend on the batch size and the number of devices. Rows are
collected into blocks of a fixed length that does not depend on the batches. Blocks are joined by deviations from their
own means (Chan, Golub & LeVeque, 1979), which stays exact when the mean is much larger than the spread.
"""

from typing import NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float

from transdiff_jax.errors import UserError
from transdiff_jax.parallel.processes import is_first

BLOCK = 1024  # rows; few enough for memory, but enough that joining a block costs less than its product


class Gaussian(NamedTuple):
    """Mean and covariance of a set of features, float64."""

    mean: Float[np.ndarray, " width"]
    covariance: Float[np.ndarray, "width width"]


class _Moments(NamedTuple):
    """Size and mean of a set, and the sum of outer products of its deviations from that mean."""

    count: int
    mean: Float[np.ndarray, " width"]
    scatter: Float[np.ndarray, "width width"]


class FeatureStatistics:
    """Streaming mean and covariance.

    The same rows give the same result: to the last bit in batches of any size, and up to rounding (1e-12) in any order
    and in any number of merged parts.
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

    def add(self, features: Float[np.ndarray, "n width"]) -> None:
        """Adds rows.

        Raises:
            ValueError: the features have another shape.
        """
        if features.ndim != 2 or features.shape[1] != self.width:
            raise ValueError(f"features must be [n, {self.width}], got {features.shape}")
        rows = np.array(features, np.float64)  # a copy, because the caller's array may change
        self._pending.append(rows)
        self._pending_rows += len(rows)
        if self._pending_rows >= BLOCK:
            rows = np.concatenate(self._pending)
            whole = len(rows) - len(rows) % BLOCK
            for start in range(0, whole, BLOCK):
                self._moments = _join(self._moments, _moments_of(rows[start : start + BLOCK]))
            self._pending, self._pending_rows = [rows[whole:].copy()], len(rows) - whole

    def merge(self, other: "FeatureStatistics") -> None:
        """Adds all rows of `other`, for instance those of another process; `other` does not change.

        Raises:
            ValueError: the features differ in width.
        """
        if other.width != self.width:
            raise ValueError(f"features differ in width: {self.width} and {other.width}")
        self._moments = _join(self._moments, other._moments)
        for rows in other._pending:
            self.add(rows)

    def gaussian(self, source: str) -> Gaussian:
        """Mean and unbiased covariance (N - 1) of all rows so far.

        Warns if there are too few rows for a covariance of full rank.

        Args:
            source: name of the set in errors and warnings.

        Raises:
            UserError: there are fewer than two rows, or a feature is not finite.
        """
        if self.count < 2:
            raise UserError(f"{source}: a covariance needs at least 2 images, but there are {self.count}")
        count, mean, scatter = self._moments
        if self._pending_rows:
            count, mean, scatter = _join(self._moments, _moments_of(np.concatenate(self._pending)))
        if not np.isfinite(mean).all() or not np.isfinite(scatter).all():
            raise UserError(f"{source}: features are not finite; check the network's weights")
        if (warning := rank_warning(count, self.width)) and is_first():  # all processes have the same statistics
            logging.warning("%s: %s", source, warning)
        return Gaussian(mean.copy(), scatter / (count - 1))


def rank_warning(count: int, width: int) -> str | None:
    """A warning that there are too few rows for a covariance of full rank; None if there are enough."""
    if count > width:
        return None
    return (
        f"{count} images for features of width {width}: the covariance is singular, and Fréchet distances made with it "
        "are too large by an amount that depends on the number of images: do not compare them with others"
    )


def fit_gaussian(features: Float[np.ndarray, "n width"], source: str) -> Gaussian:
    """Mean and covariance of features; `source` and errors as in `FeatureStatistics.gaussian`."""
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
