"""MRAR index files of cached latents: random groups of a class, or each image after its nearest neighbours in it.

The lines are those of the release's index ({"cate": class, "files": [four images]}), and every record ends one group.
Neighbours come from far to near, so that the image that refers to all others follows the most similar one.
"""

import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh

from transdiff_jax import rng, sharding
from transdiff_jax.checkpoint import Weights
from transdiff_jax.data.latents import LatentSource
from transdiff_jax.data.references import RandomGroups
from transdiff_jax.errors import UserError
from transdiff_jax.files import atomic_path, write_errors
from transdiff_jax.model.transdiff import Params, TransDiff
from transdiff_jax.tokenizer.kl16 import LATENT_SCALE

Array = jax.Array

BATCH = 64  # records whose semantic features are computed at once
LOG_SECONDS = 5.0


def write_random_groups(source: LatentSource, path: Path, num_images: int, seed: int, small_classes: str) -> int:
    """Draws the groups that training would draw in one epoch, once and for all.

    Returns:
        The number of groups.

    Raises:
        UserError: classes that are too small (as in `RandomGroups`), or the file cannot be written.
    """
    groups = RandomGroups(source.labels(), num_images, small_classes)

    def draw() -> Iterator[np.ndarray]:
        for row in range(len(groups)):
            yield groups.members(row, np.random.default_rng((rng.integer_seed(seed, rng.GROUPS), row)))

    return _write(source, path, draw())


def write_neighbour_groups(
    source: LatentSource, path: Path, num_images: int, small_classes: str, weights: Weights | None, mesh: Mesh
) -> int:
    """Groups of each record and its nearest neighbours of the same class, by Euclidean distance.

    Distances are between latents (posterior means) where `weights` is None, otherwise between the semantic features
    that an MRAR model has of an image as its first reference, averaged over tokens.

    Returns:
        The number of groups.

    Raises:
        UserError: classes that are too small, weights that take no references or other latents, damaged latents, or
            the file cannot be written.
    """
    if weights is not None:
        _check_weights(weights, source)
    # The same rows and the same messages about small classes as random groups have.
    rows = RandomGroups(source.labels(), num_images, small_classes).ends()
    return _write(source, path, _neighbours(source, rows, num_images, weights, mesh))


def _neighbours(
    source: LatentSource, rows: np.ndarray, num_images: int, weights: Weights | None, mesh: Mesh
) -> Iterator[np.ndarray]:
    labels, reported = source.labels(), time.monotonic()
    classes = np.unique(labels[rows])
    semantic = None if weights is None else _semantic_features(weights, mesh)
    for number, label in enumerate(classes.tolist(), start=1):
        members = np.flatnonzero(labels == label)
        latents = np.stack([_mean_latent(source, int(index)) for index in members])
        features = latents if semantic is None else semantic(latents, label)
        for group in nearest_groups(features.reshape(len(members), -1), num_images):
            yield members[group]
        if time.monotonic() - reported > LOG_SECONDS:
            reported = time.monotonic()
            logging.info("grouped %d of %d classes", number, len(classes))


def nearest_groups(features: np.ndarray, num_images: int) -> np.ndarray:
    """Each row after its nearest ones, from far to near.

    Args:
        features: [n, d].
        num_images: of a group; where there are fewer rows, the nearest ones repeat.

    Returns:
        Row numbers [n, num_images], the row itself last; of equally near rows the first.
    """
    features = features.astype(np.float64)
    # Less the mean, for the precision of the differences of squares.
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


def _semantic_features(weights: Weights, mesh: Mesh) -> Callable[[np.ndarray, int], np.ndarray]:
    """From latents [n, h, w, c] of a class to float32 [n, width]; compiled once for all classes."""
    model, size = TransDiff(weights.config.model), BATCH * sharding.batch_shards(mesh)

    @functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def features(params: Params, latents: Array, labels: Array) -> Array:
        with sharding.over(mesh):
            start = model.apply({"params": params}, labels, jnp.zeros(len(labels), bool), method="start")
            extended = model.apply({"params": params}, latents, start.cache, method="extend")
        return extended.features.astype(jnp.float32).mean(axis=1)

    def of_class(latents: np.ndarray, label: int) -> np.ndarray:
        made = []
        for first in range(0, len(latents), size):
            indices = np.minimum(np.arange(first, first + size), len(latents) - 1)
            batch = {"latents": latents[indices], "labels": np.full(size, label, np.int32)}
            made.append(np.asarray(features(weights.params, *sharding.from_whole(batch, mesh).values())))
        return np.concatenate(made)[: len(latents)]

    return of_class


def _check_weights(weights: Weights, source: LatentSource) -> None:
    model, (_, size, _, channels) = weights.config.model, source.manifest.settings.shape
    if model.num_images < 2:
        raise UserError("--groups=semantic needs a run of MRAR: a 1-step model takes no image as a reference")
    for name, ours, theirs in (
        ("latent_size", model.latent_size, size),
        ("latent_channels", model.latent_channels, channels // 2),
        ("num_classes", model.num_classes, len(source.class_names)),
    ):
        if ours != theirs:
            raise UserError(f"--groups_run has config.model.{name}={ours}, but the latents of --out have {theirs}")


def _write(source: LatentSource, path: Path, groups: Iterator[np.ndarray]) -> int:
    count = 0
    with write_errors(path), atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for members in groups:
            file.write(json.dumps(_line(source, members.tolist())) + "\n")
            count += 1
    return count


def _line(source: LatentSource, members: list[int]) -> dict[str, str | list[str]]:
    """As in the release where ids begin with a folder that all share: it stands for the class."""
    ids = [source.id(index) for index in members]
    folders = {name.partition("/")[0] for name in ids}
    if len(folders) == 1 and all("/" in name for name in ids):
        return {"cate": folders.pop(), "files": [name.partition("/")[2] for name in ids]}
    return {"cate": source.class_names[source.label(members[-1])], "files": ids}
