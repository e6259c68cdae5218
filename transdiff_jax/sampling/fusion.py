"""Fusing two classes: their semantic features spliced token by token (paper, figure 1)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from transdiff_jax import rng
from transdiff_jax.config import ModelConfig
from transdiff_jax.model.transdiff import TransDiff

Labels = Int[Array | np.ndarray, " b"] | Int[Array | np.ndarray, "b 2"]  # classes, or pairs of classes to fuse
# The semantic tokens, of all images or of those to come, that take the second class's feature.
Splice = Bool[Array | np.ndarray, "b _tokens"]


def draw_splice(
    config: ModelConfig, seed: int | Int[Array, ""], indices: Int[Array | np.ndarray, " b"], fraction: float
) -> Bool[Array, "b tokens"]:
    """Draws which semantic tokens of each fused sample, over all its images, take the second class's feature.

    Args:
        config: sizes.
        seed: of the samples.
        indices: sample indices.
        fraction: probability of the second class, for each token.
    """
    shape = (config.semantic_tokens,)
    return jax.vmap(lambda i: jax.random.bernoulli(rng.key(seed, rng.FUSION, i), fraction, shape))(indices)


def check_splice(model: TransDiff, labels: Labels, splice: Splice | None) -> None:
    """Raises a ValueError unless labels and splice fit each other and the model."""
    tokens = (len(labels), model.config.semantic_tokens)
    if splice is None and labels.ndim != 1:
        raise ValueError(f"labels must be [b], or [b, 2] with a splice {tokens}, got {labels.shape} without one")
    if splice is not None and (labels.shape[1:], splice.shape) != ((2,), tokens):
        raise ValueError(f"a splice must be {tokens} for labels {(len(labels), 2)}, got {splice.shape}, {labels.shape}")


def splice_features(
    sequences: Float[Array, "b sequences tokens width"], splice: Splice | None
) -> tuple[Float[Array, "b tokens width"], Splice | None]:
    """The conditional features of a group from those of each sample's sequences, and the splice of later groups."""
    if splice is None:
        return sequences[:, 0], None
    tokens = sequences.shape[2]
    return jnp.where(splice[:, :tokens, None], sequences[:, 1], sequences[:, 0]), splice[:, tokens:]
