"""Makes MRAR index files of cached latents: random groups of a class, or each image after its nearest neighbours in it.

The lines are those of the release's index ({"cate": class, "files": [four images]}), and every record ends one group.
Neighbours are in order from far to near, so that the image that sees all others follows the most similar one.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from transdiff_jax import rng
from transdiff_jax.data.groups.groups import RandomGroups
from transdiff_jax.data.groups.index import write_index
from transdiff_jax.data.latents.source import LatentSource
from transdiff_jax.parallel.progress import Progress
from transdiff_jax.tokenizer.kl16 import LATENT_SCALE

ClassFeatures = Callable[[np.ndarray, int], np.ndarray]  # (latents [n, h, w, c] of a class, the class) -> [n, d]


def write_random_groups(source: LatentSource, path: Path, num_images: int, seed: int, small_classes: str) -> int:
    """Writes random groups, drawn once and for all as training draws them for one epoch.

    Returns:
        The number of groups.

    Raises:
        UserError: a class is too small (as in `RandomGroups`), or the file cannot be written.
    """
    groups = RandomGroups(source.labels(), num_images, small_classes)

    def draw() -> Iterator[np.ndarray]:
        for row in range(len(groups)):
            yield groups.members(row, np.random.default_rng((rng.integer_seed(seed, rng.GROUPS), row)))

    return write_index(source, path, draw())


def write_neighbour_groups(
    source: LatentSource, path: Path, num_images: int, small_classes: str, features: ClassFeatures | None = None
) -> int:
    """Writes groups of each record and its nearest neighbours of the same class, by Euclidean distance.

    Args:
        source: complete cached latents.
        path: the index file.
        num_images: of a group.
        small_classes: as in `RandomGroups`.
        features: gives the features to measure distances on; None for the latents (posterior means) themselves.

    Returns:
        The number of groups.

    Raises:
        UserError: a class is too small, the latents are damaged, or the file cannot be written.
    """
    # Random groups give the same rows, and the same messages about small classes.
    rows = RandomGroups(source.labels(), num_images, small_classes).ends()
    return write_index(source, path, _neighbours(source, rows, num_images, features))


def _neighbours(
    source: LatentSource, rows: np.ndarray, num_images: int, features_of: ClassFeatures | None
) -> Iterator[np.ndarray]:
    labels = source.labels()
    classes = np.unique(labels[rows])
    progress = Progress("grouped", "classes", len(classes))
    for label in classes.tolist():
        members = np.flatnonzero(labels == label)
        latents = np.stack([_mean_latent(source, int(index)) for index in members])
        features = latents if features_of is None else features_of(latents, label)
        for group in nearest_groups(features.reshape(len(members), -1), num_images):
            yield members[group]
        progress.add()


def nearest_groups(features: np.ndarray, num_images: int) -> np.ndarray:
    """Each row after its nearest ones, from far to near.

    Args:
        features: [n, d].
        num_images: of a group; if there are fewer rows, the nearest ones repeat.

    Returns:
        Row numbers [n, num_images], the row itself last; of equally near rows, the first counts as nearer.
    """
    features = features.astype(np.float64)
    # A large mean would cost the differences of squares their precision.
    features = features - features.mean(axis=0)
    squares = np.sum(features**2, axis=1)
    distances = squares[:, None] + squares - 2 * features @ features.T
    np.fill_diagonal(distances, -np.inf)
    order = np.argsort(distances, axis=1, kind="stable")  # each row begins with itself
    near = order[:, 1:] if len(features) > 1 else order
    columns = np.arange(num_images - 1) % near.shape[1]
    return np.concatenate([near[:, columns[::-1]], order[:, :1]], axis=1)


def _mean_latent(source: LatentSource, index: int) -> np.ndarray:
    """The most likely latent of a record, scaled as the model takes it, float32 [h, w, c]."""
    moments = source[index]["moments"][0]
    return LATENT_SCALE * moments[..., : moments.shape[-1] // 2].astype(np.float32)
