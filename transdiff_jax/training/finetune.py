"""Fine-tuning: which parameters of another run are copied, adapted, or start fresh.

Only weights are taken; the new run starts at step 0 with a new optimizer. Parameters with the same path and shape are
copied. One table holds the differences that the published fine-tunes need; any other difference is an error.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from absl import logging
from jax import Array
from jax.tree_util import KeyPath
from jaxtyping import Float

from transdiff_jax.config import ModelConfig
from transdiff_jax.errors import UserError
from transdiff_jax.model.params import Params
from transdiff_jax.training.parameter_rules import path_name

Adaptation = Callable[[Array, tuple[int, ...]], Array]  # (source, target shape) -> target


def repeat_mask_vector(source: Float[Array, "1 width"], shape: tuple[int, ...]) -> Float[Array, "tokens width"]:
    """One mask vector for all positions -> one for each position (1-step to MRAR)."""
    return jnp.repeat(source, shape[0], axis=0)


def resize_positions(source: Float[Array, "tokens width"], shape: tuple[int, ...]) -> Float[Array, "new_tokens width"]:
    """Resizes the position table of a square grid bilinearly (256 to 512 pixels)."""
    old, new, width = math.isqrt(source.shape[0]), math.isqrt(shape[0]), shape[1]
    resized = jax.image.resize(source.reshape(old, old, width), (new, new, width), "bilinear")
    return resized.reshape(shape)


ADAPTATIONS: dict[str, Adaptation] = {
    "encoder/mask_embedding": repeat_mask_vector,
    "decoder/position_embedding": resize_positions,
}
# 1-step models have no earlier images to project; only few-step students know jumps, and ignore them at first.
FRESH = (
    *("encoder/reference_projection/kernel", "encoder/reference_projection/bias"),
    *(
        f"decoder/{name}_embedding/{layer}/{leaf}"
        for name in ("length", "guidance")
        for layer in ("up", "down")
        for leaf in ("kernel", "bias")
    ),
)


def _adaptable(name: str, source: Array, target: Array) -> bool:
    if name not in ADAPTATIONS or source.shape[1:] != target.shape[1:]:
        return False
    return name != "encoder/mask_embedding" or source.shape[0] == 1


def adapt_params(source: Params, fresh: Params, source_model: ModelConfig, origin: str) -> Params:
    """Parameters in the shape of `fresh`, taken from `source` where possible.

    Args:
        source: weights of the other run.
        fresh: newly initialised parameters of this run.
        source_model: the other run's model, which errors describe.
        origin: where `source` comes from, for messages.

    Raises:
        UserError: a parameter differs in a way that the table does not list.
    """
    available = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(source)}

    def take(path: KeyPath, target: Array) -> Array:
        name = path_name(path)
        found = available.pop(name, None)
        if found is None and name in FRESH:
            logging.info("fine-tuning: %s %s starts fresh", name, target.shape)
            return target
        if found is not None and found.shape == target.shape:
            return found
        if found is not None and _adaptable(name, found, target):
            logging.info("fine-tuning: %s adapted from %s to %s", name, found.shape, target.shape)
            return ADAPTATIONS[name](found, target.shape)
        there = "is missing there" if found is None else f"has shape {found.shape} there"
        raise UserError(
            f"config.train.init_from={origin} does not fit this model: {name} of shape {target.shape} {there} "
            f"({_size(source_model)})"
        )

    adapted = jax.tree_util.tree_map_with_path(take, fresh)
    if available:
        raise UserError(
            f"config.train.init_from={origin} does not fit this model: it also holds {', '.join(sorted(available))} "
            f"({_size(source_model)})"
        )
    return adapted


def _size(model: ModelConfig) -> str:
    return (
        f"a model of width {model.width}, {model.encoder_blocks}+{model.decoder_blocks} blocks, "
        f"{model.num_images} image(s) of {model.tokens_per_image} tokens"
    )
