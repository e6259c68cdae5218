"""Fusing two classes: their semantic features spliced token by token (paper, figure 1)."""

import jax
import jax.numpy as jnp

from transdiff_jax import rng
from transdiff_jax.config import ModelConfig
from transdiff_jax.model.transdiff import TransDiff

Array = jax.Array


def draw_splice(config: ModelConfig, seed: Array, indices: Array, fraction: float) -> Array:
    """Which semantic tokens of a fused sample take the second class's feature, each at random.

    Args:
        seed: scalar integer.
        indices: sample indices [b].
        fraction: probability of the second class.

    Returns:
        bool [b, num_images * tokens_per_image].
    """
    shape = (config.semantic_tokens,)
    return jax.vmap(lambda i: jax.random.bernoulli(rng.key(seed, rng.FUSION, i), fraction, shape))(indices)


def check_splice(model: TransDiff, labels: Array, splice: Array | None) -> None:
    """Raises a ValueError unless labels and splice fit each other and the model."""
    tokens = (len(labels), model.config.semantic_tokens)
    if splice is None and labels.ndim != 1:
        raise ValueError(f"labels must be [b], or [b, 2] with a splice {tokens}, got {labels.shape} without one")
    if splice is not None and (labels.shape[1:], splice.shape) != ((2,), tokens):
        raise ValueError(f"a splice must be {tokens} for labels {(len(labels), 2)}, got {splice.shape}, {labels.shape}")


def splice_features(sequences: Array, splice: Array | None) -> tuple[Array, Array | None]:
    """The conditional features of a group, from those of its sequences [b, sequences, tokens, width].

    The second result is the splice of later groups.
    """
    if splice is None:
        return sequences[:, 0], None
    tokens = sequences.shape[2]
    return jnp.where(splice[:, :tokens, None], sequences[:, 1], sequences[:, 0]), splice[:, tokens:]
