"""Scores of sets of features, in float64 on the host.

Each agrees with torch-fidelity's value of the same name, random draws included.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.special
from jaxtyping import Float

from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.statistics import Gaussian

SEED = 2020  # of shuffles and subsets; torch-fidelity's value
SPLITS = 10
KERNEL_SUBSETS, KERNEL_SUBSET_SIZE = 100, 1000


class Score(NamedTuple):
    """The mean of a score over parts of a set, and its standard deviation over them (divided by N)."""

    mean: float
    std: float


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Fréchet distance |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)); for Inception features, this is the FID.

    With S = R R^T, the roots of the eigenvalues of S1 S2 are the singular values of R1^T R2. This way, directions
    without variance add nothing. Rounding makes their eigenvalues small instead of zero, and the root of a small
    number is much larger than the number.

    Raises:
        ValueError: the features differ in width.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features differ in width: {a.mean.shape} and {b.mean.shape}")
    product = _root(a.covariance).T @ _root(b.covariance)
    root_trace = np.sum(scipy.linalg.svdvals(product)) if product.size else 0.0
    mean_term = np.sum((a.mean - b.mean) ** 2)
    return float(mean_term + np.trace(a.covariance) + np.trace(b.covariance) - 2 * root_trace)


def _root(covariance: Float[np.ndarray, "width width"]) -> Float[np.ndarray, "width rank"]:
    """R with R R^T = covariance, without the directions whose variance is only rounding."""
    # This driver is several times faster than the default.
    variances, directions = (np.asarray(part) for part in scipy.linalg.eigh(covariance, driver="evd"))
    kept = variances > max(variances[-1], 0) * len(variances) * np.finfo(np.float64).eps
    return directions[:, kept] * np.sqrt(variances[kept])


def inception_score(
    logits: Float[np.ndarray, "n classes"],
    *,
    splits: int = SPLITS,
    split_size: int | None = None,
    seed: int | None = SEED,
) -> Score:
    """Inception Score: exp of the mean divergence of each image's class distribution from its split's mean.

    Args:
        logits: without the network's last bias.
        splits: number of parts that are scored separately; their sizes differ by one image at most.
        split_size: images in each part but the last, which takes the rest; replaces `splits`.
        seed: of the shuffle before splitting; None keeps the order. Sets are in the order of their classes: without a
            shuffle, each split would hold only some classes and score lower.

    Raises:
        UserError: there are fewer images than splits.
    """
    count = len(logits)
    if split_size is None and count < splits:
        raise UserError(f"the Inception Score splits images into {splits} parts; there are only {count} images")
    order = np.arange(count) if seed is None else np.random.RandomState(seed).permutation(count)
    if split_size is None:
        starts = [count * split // splits for split in range(splits)]
    else:
        starts = list(range(0, count, split_size))
    scores = []
    for rows in np.split(order, starts[1:]):
        log_p = scipy.special.log_softmax(logits[rows].astype(np.float64), axis=1)
        log_mean = scipy.special.logsumexp(log_p, axis=0) - np.log(len(rows))
        scores.append(np.exp(np.sum(np.exp(log_p) * (log_p - log_mean), axis=1).mean()))
    return Score(float(np.mean(scores)), float(np.std(scores)))


def kernel_distance(
    generated: Float[np.ndarray, "n width"],
    real: Float[np.ndarray, "m width"],
    *,
    subsets: int = KERNEL_SUBSETS,
    subset_size: int = KERNEL_SUBSET_SIZE,
    seed: int = SEED,
) -> Score:
    """KID (arXiv 1801.01401): unbiased squared MMD with the kernel (x.y / width + 1)^3, mean over random subsets.

    Args:
        generated: features.
        real: features.
        subsets: number of pairs of subsets, drawn from both sets in turn, generated first.
        subset_size: images in each subset, drawn without repetition.
        seed: of the draws.

    Raises:
        UserError: a set is smaller than a subset.
    """
    smaller = min(len(generated), len(real))
    if smaller < subset_size:
        raise UserError(f"KID draws subsets of {subset_size} images, but one set has only {smaller}")
    draws = np.random.RandomState(seed)
    distances = []
    for _ in range(subsets):
        x, y = (
            features[draws.choice(len(features), subset_size, replace=False)].astype(np.float64)
            for features in (generated, real)
        )
        within = sum(kernel.sum() - np.trace(kernel) for kernel in (_cubic_kernel(x, x), _cubic_kernel(y, y)))
        distances.append(within / (subset_size * (subset_size - 1)) - 2 * _cubic_kernel(x, y).mean())
    return Score(float(np.mean(distances)), float(np.std(distances)))


def _cubic_kernel(x: Float[np.ndarray, "n width"], y: Float[np.ndarray, "m width"]) -> Float[np.ndarray, "n m"]:
    kernel = x @ y.T / x.shape[1] + 1
    return kernel * kernel * kernel  # many times faster than a power


NEIGHBOURS = 3
_BLOCK_VALUES = 2**24  # distances in memory at once, 128 MiB: 50,000 x 50,000 of them would take 20 GB
# Squared distances are differences of larger squares. One that is this small relative to them is rounding: the features
# are equal.
_EQUAL = 1e-13


class PrecisionRecall(NamedTuple):
    """Shares of images, each 0 … 1."""

    precision: float  # generated images that lie among the real ones
    recall: float  # real images that lie among the generated ones


def precision_recall(
    generated: Float[np.ndarray, "n width"], real: Float[np.ndarray, "m width"], *, neighbours: int = NEIGHBOURS
) -> PrecisionRecall:
    """Precision and recall: an image lies among a set if it lies in the ball of any image of the set.

    The radius of an image's ball is the distance to its `neighbours`-th neighbour in its own set, itself not counted.
    Distances are exact to float64, so that an image on the rim of a ball counts the same everywhere.

    Args:
        generated: features.
        real: features.
        neighbours: at least 1.

    Raises:
        UserError: a set has no more than `neighbours` images.
    """
    for name, features in (("generated", generated), ("real", real)):
        if len(features) <= neighbours:
            raise UserError(
                f"precision and recall need more than {neighbours} {name} images, but there are {len(features)}"
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
    """Yields blocks of rows of the matrix [len(a), len(b)] of squared distances, with the number of the first row."""
    centre = b.mean(axis=0, dtype=np.float64)  # distances stay the same and squares shrink, so less cancels
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
    """Squared lengths; does not copy the rows."""
    return np.einsum("ij,ij->i", rows, rows)
