"""Improved precision and recall (arXiv 1904.06991): which images lie among those of the other set."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from transdiff_jax.errors import UserError

NEIGHBOURS = 3
_BLOCK_VALUES = 2**24  # distances in memory at once, 128 MiB: 50,000 x 50,000 of them would take 20 GB
# Squared distances are sums that cancel: what is this small beside the squares is rounding, and means equal features.
_EQUAL = 1e-13


class PrecisionRecall(NamedTuple):
    """Shares, each 0 … 1."""

    precision: float  # of generated images among the real ones
    recall: float  # of real images among the generated ones


def precision_recall(generated: np.ndarray, real: np.ndarray, *, neighbours: int = NEIGHBOURS) -> PrecisionRecall:
    """An image is among a set if it lies in the ball of any of the set's images.

    The radius of an image's ball is the distance to its `neighbours`-th neighbour in its own set, itself not counted.
    Distances are exact to float64, so that images on the rim of a ball count alike everywhere.

    Args:
        generated: features [n, d].
        real: features [m, d].
        neighbours: at least 1.

    Raises:
        UserError: a set has no image with so many neighbours.
    """
    for name, features in (("generated", generated), ("real", real)):
        if len(features) <= neighbours:
            raise UserError(
                f"precision and recall need more than {neighbours} {name} images, there are {len(features)}"
            )
    generated_radii, real_radii = _squared_radii(generated, neighbours), _squared_radii(real, neighbours)
    among_real, among_generated = [], np.zeros(len(real), bool)
    for start, distances in _squared_distances(generated, real):
        rows = slice(start, start + len(distances))
        among_real.append((distances <= real_radii).any(axis=1))
        among_generated |= (distances <= generated_radii[rows, None]).any(axis=0)
    return PrecisionRecall(float(np.concatenate(among_real).mean()), float(among_generated.mean()))


def _squared_radii(features: np.ndarray, neighbours: int) -> np.ndarray:
    radii = []
    for start, distances in _squared_distances(features, features):
        rows = np.arange(len(distances))
        distances[rows, start + rows] = np.inf  # itself
        radii.append(np.partition(distances, neighbours - 1, axis=1)[:, neighbours - 1])
    return np.concatenate(radii)


def _squared_distances(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Runs of rows of the matrix [len(a), len(b)] of squared distances, with the number of the first row."""
    centre = b.mean(axis=0, dtype=np.float64)  # distances stay, and squares become small: less cancels
    b = b - centre
    b_squares = _squares(b)
    block = max(1, _BLOCK_VALUES // len(b))
    for start in range(0, len(a), block):
        rows = a[start : start + block] - centre
        squares = _squares(rows)[:, None] + b_squares
        distances = squares - 2 * (rows @ b.T)
        distances[distances <= _EQUAL * squares] = 0
        yield start, distances


def _squares(rows: np.ndarray) -> np.ndarray:
    """Squared lengths, without a copy of the rows."""
    return np.einsum("ij,ij->i", rows, rows)
