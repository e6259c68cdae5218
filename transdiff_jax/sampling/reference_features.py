"""Semantic features that an MRAR model has of an image as the first of its sequence."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from transdiff_jax.config import ModelConfig
from transdiff_jax.errors import UserError
from transdiff_jax.model.params import Params
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.parallel import axes
from transdiff_jax.parallel.arrays import from_whole, replicated
from transdiff_jax.parallel.mesh import batch_shards

Array = jax.Array

BATCH = 64  # images of a device at once


def reference_features(model: ModelConfig, params: Params, mesh: Mesh) -> Callable[[np.ndarray, int], np.ndarray]:
    """A function from latents [n, h, w, c] of a class, and the class, to float32 [n, width]: means over tokens.

    It compiles once for all classes.

    Raises:
        UserError: a 1-step model, which takes no image as a reference.
    """
    if model.num_images < 2:
        raise UserError("semantic features of images need a run of MRAR: a 1-step model takes no image as a reference")
    network, size = TransDiff(model), BATCH * batch_shards(mesh)

    @functools.partial(jax.jit, out_shardings=replicated(mesh))
    def features(params: Params, latents: Array, labels: Array) -> Array:
        with axes.over(mesh):
            start = network.apply({"params": params}, labels, jnp.zeros(len(labels), bool), method="start")
            extended = network.apply({"params": params}, latents, start.cache, method="extend")
        return extended.features.astype(jnp.float32).mean(axis=1)

    def of_class(latents: np.ndarray, label: int) -> np.ndarray:
        made = []
        for first in range(0, len(latents), size):
            indices = np.minimum(np.arange(first, first + size), len(latents) - 1)
            batch = {"latents": latents[indices], "labels": np.full(size, label, np.int32)}
            made.append(np.asarray(features(params, *from_whole(batch, mesh).values())))
        return np.concatenate(made)[: len(latents)]

    return of_class
