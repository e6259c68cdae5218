"""Semantic features of images, each taken by an MRAR model as the first image of a sequence."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Float32

from transdiff_jax.config import ModelConfig
from transdiff_jax.data.groups.making import ClassFeatures
from transdiff_jax.errors import UserError
from transdiff_jax.model.params import Params, applied
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.parallel import axes
from transdiff_jax.parallel.arrays import replicated
from transdiff_jax.parallel.mesh import batch_shards
from transdiff_jax.parallel.row_batches import map_rows

BATCH = 64  # images on each device at once


def check_fits(model: ModelConfig, *, latent_size: int, latent_channels: int, num_classes: int) -> None:
    """Raises a UserError unless a run's model takes images with such latents and classes."""
    for name, found in (
        ("latent_size", latent_size),
        ("latent_channels", latent_channels),
        ("num_classes", num_classes),
    ):
        if getattr(model, name) != found:
            raise UserError(
                f"the run has config.model.{name}={getattr(model, name)}, but the images have {found}: name another run"
            )


def reference_features(model: ModelConfig, params: Params, mesh: Mesh) -> ClassFeatures:
    """A function from latents of one class, and the class, to the means of their features over tokens.

    It compiles once for all classes.

    Raises:
        UserError: the model is a 1-step one, which takes no earlier image.
    """
    if model.num_images < 2:
        raise UserError("semantic features of images need a run of MRAR, because a 1-step model takes no earlier image")
    network, size = TransDiff(model), BATCH * batch_shards(mesh)

    def features(params: Params, rows: Mapping[str, Array]) -> Float32[Array, "n width"]:
        labels = rows["labels"]
        with axes.over(mesh):
            start = applied(network, params, TransDiff.start)(labels, jnp.zeros(len(labels), bool))
            extended = applied(network, params, TransDiff.extend)(rows["latents"], start.cache)
        return extended.features.astype(jnp.float32).mean(axis=1)

    jitted = jax.jit(features, out_shardings=replicated(mesh))

    def of_class(latents: Float[np.ndarray, "n h w c"], label: int) -> Float32[np.ndarray, "n width"]:
        rows = {"latents": latents, "labels": np.full(len(latents), label, np.int32)}
        return map_rows(lambda rows: jitted(params, rows), rows, size, mesh)

    return of_class
