"""Semantic features that an MRAR model has of an image as the first of its sequence."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from transdiff_jax.config import ModelConfig
from transdiff_jax.errors import UserError
from transdiff_jax.model.params import Params
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.parallel import axes
from transdiff_jax.parallel.arrays import replicated
from transdiff_jax.parallel.mesh import batch_shards
from transdiff_jax.parallel.row_batches import map_rows

Array = jax.Array

BATCH = 64  # images of a device at once


def check_fits(model: ModelConfig, *, latent_size: int, latent_channels: int, num_classes: int) -> None:
    """Raises a UserError unless images with such latents and classes are those of a run."""
    for name, found in (
        ("latent_size", latent_size),
        ("latent_channels", latent_channels),
        ("num_classes", num_classes),
    ):
        if getattr(model, name) != found:
            raise UserError(
                f"the run has config.model.{name}={getattr(model, name)}, but the images have {found}: name another run"
            )


def reference_features(model: ModelConfig, params: Params, mesh: Mesh) -> Callable[[np.ndarray, int], np.ndarray]:
    """A function from latents [n, h, w, c] of a class, and the class, to float32 [n, width]: means over tokens.

    It compiles once for all classes.

    Raises:
        UserError: a 1-step model, which takes no image as a reference.
    """
    if model.num_images < 2:
        raise UserError("semantic features of images need a run of MRAR: a 1-step model takes no image as a reference")
    network, size = TransDiff(model), BATCH * batch_shards(mesh)

    def features(params: Params, rows: Mapping[str, Array]) -> Array:
        labels, variables = rows["labels"], {"params": params}
        with axes.over(mesh):
            start = network.apply(variables, labels, jnp.zeros(len(labels), bool), method=TransDiff.start)
            extended = network.apply(variables, rows["latents"], start.cache, method=TransDiff.extend)
        return extended.features.astype(jnp.float32).mean(axis=1)

    jitted = jax.jit(features, out_shardings=replicated(mesh))

    def of_class(latents: np.ndarray, label: int) -> np.ndarray:
        rows = {"latents": latents, "labels": np.full(len(latents), label, np.int32)}
        return map_rows(lambda rows: jitted(params, rows), rows, size, mesh)

    return of_class
