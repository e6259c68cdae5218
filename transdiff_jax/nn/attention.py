"""Multi-head attention: self, cross (with keys and values made apart), and the block-causal mask of MRAR."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from transdiff_jax import sharding
from transdiff_jax.nn.layers import Dropout, dense

Array = jax.Array


class KeysValues(NamedTuple):
    """Keys and values, each [..., tokens, heads, head_dim]."""

    key: Array
    value: Array


def block_causal_mask(block_sizes: tuple[int, ...]) -> np.ndarray:
    """Boolean [tokens, tokens]: a token sees its own block and every earlier one (True: may attend).

    In MRAR the blocks are the class tokens and one group of tokens for each image (paper, section 3.3).
    """
    block = np.repeat(np.arange(len(block_sizes)), block_sizes)
    return block[:, None] >= block[None, :]


def attend(
    query: Array,
    keys_values: KeysValues,
    mask: Array | np.ndarray | None = None,
    drop: Callable[[Array], Array] = lambda weights: weights,
) -> Array:
    """Scaled dot-product attention with the softmax in float32.

    Args:
        query: [b, q, heads, head_dim].
        keys_values: tokens to attend to, [b, k, heads, head_dim].
        mask: boolean [q, k], True where a query may attend; None for everywhere.
        drop: applied to the attention weights [b, heads, q, k].

    Returns:
        [b, q, heads, head_dim].
    """
    key, value = keys_values
    scale = query.shape[-1] ** -0.5
    logits = jnp.einsum("bqhd,bkhd->bhqk", query * scale, key, preferred_element_type=jnp.float32)
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
    weights = drop(jax.nn.softmax(logits, axis=-1).astype(value.dtype))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def _project_heads(x: Array, width: int, dtype: jnp.dtype) -> Array:
    axes = (sharding.HEADS, sharding.HEAD_DIM, sharding.EMBED)
    return dense(width, axes, dtype, contract=2, name="output")(x)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values."""

    heads: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, mask: Array | np.ndarray | None = None) -> Array:
        """[b, tokens, width] -> the same; `mask` [tokens, tokens] as in `attend`."""
        width = x.shape[-1]
        axes = (sharding.EMBED, sharding.QKV, sharding.HEADS, sharding.HEAD_DIM)
        qkv = dense((3, self.heads, width // self.heads), axes, self.dtype, name="qkv")(x)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        x = attend(query, KeysValues(key, value), mask, Dropout(self.dropout))
        return Dropout(self.dropout)(_project_heads(x, width, self.dtype))


class CrossKeysValues(nn.Module):
    """The side of cross-attention that depends on the condition alone: made once, used at every time step."""

    heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, condition: Array) -> KeysValues:
        """[b, tokens, width] -> keys and values [b, tokens, heads, head_dim]."""
        shape = (self.heads, condition.shape[-1] // self.heads)
        axes = (sharding.EMBED, sharding.HEADS, sharding.HEAD_DIM)
        key = dense(shape, axes, self.dtype, name="key")(condition)
        value = dense(shape, axes, self.dtype, name="value")(condition)
        return KeysValues(key, value)


class CrossAttention(nn.Module):
    """Multi-head cross-attention from tokens to keys and values made by `CrossKeysValues`."""

    heads: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, keys_values: KeysValues, mask: Array | np.ndarray | None = None) -> Array:
        """[b, q, width] attending to [b, k, heads, head_dim]; `mask` [q, k] as in `attend`."""
        width = x.shape[-1]
        axes = (sharding.EMBED, sharding.HEADS, sharding.HEAD_DIM)
        query = dense((self.heads, width // self.heads), axes, self.dtype, name="query")(x)
        x = attend(query, keys_values, mask, Dropout(self.dropout))
        return Dropout(self.dropout)(_project_heads(x, width, self.dtype))
