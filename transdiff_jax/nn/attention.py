"""Multi-head attention: self, whole or cached; cross, with keys and values made apart; MRAR's block-causal mask."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from transdiff_jax.nn.layers import Dropout, dense
from transdiff_jax.parallel import axes

Array = jax.Array


class KeysValues(NamedTuple):
    """Keys and values, each [..., tokens, heads, head_dim]."""

    key: Array
    value: Array


class GuidedPair(NamedTuple):
    """What the halves of guided pairs attend to; either may serve several pairs, as in `attend_rows`."""

    conditional: KeysValues
    unconditional: KeysValues


def append_tokens(earlier: KeysValues, new: KeysValues) -> KeysValues:
    """[..., m, heads, head_dim] and [..., n, heads, head_dim] -> [..., m + n, heads, head_dim]."""
    return KeysValues(*(jnp.concatenate(pair, axis=-3) for pair in zip(earlier, new, strict=True)))


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
    drop: Callable[[Array], Array] | None = None,
    implementation: str = "xla",
) -> Array:
    """Scaled dot-product attention with the softmax in float32.

    Args:
        query: [b, q, heads, head_dim].
        keys_values: tokens to attend to, [b, k, heads, head_dim].
        mask: boolean [q, k], True where a query may attend; None for everywhere.
        drop: applied to the attention weights [b, heads, q, k]; "cudnn", which never has them, takes no notice.
        implementation: "xla" or "cudnn"; see `check_implementation`.

    Returns:
        [b, q, heads, head_dim].
    """
    key, value = keys_values
    if implementation == "cudnn":
        everywhere = None if mask is None else jnp.asarray(mask)[None, None]
        return jax.nn.dot_product_attention(query, key, value, mask=everywhere, implementation="cudnn")
    scale = query.shape[-1] ** -0.5
    logits = jnp.einsum("bqhd,bkhd->bhqk", query * scale, key, preferred_element_type=jnp.float32)
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    weights = weights if drop is None else drop(weights)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def attend_rows(
    query: Array,
    keys_values: KeysValues,
    mask: Array | np.ndarray | None = None,
    drop: Callable[[Array], Array] | None = None,
    implementation: str = "xla",
) -> Array:
    """`attend` from r rows for each of b conditions, those of one condition together.

    They attend as one long query, so that the keys and values of a condition are not repeated.

    Args:
        query: [b * r, q, heads, head_dim].
        keys_values: [b, k, heads, head_dim].
        mask: boolean [r * q, k], or None.
        drop: applied to the attention weights [b, heads, r * q, k].
        implementation: as in `attend`.

    Returns:
        Like `query`.
    """
    rows, tokens, *head = query.shape
    conditions = len(keys_values.key)
    long = query.reshape(conditions, rows // conditions * tokens, *head)
    return attend(long, keys_values, mask, drop, implementation).reshape(query.shape)


def attend_pairs(query: Array, pair: GuidedPair, implementation: str = "xla") -> Array:
    """`attend_rows` of interleaved guided pairs, [2b, q, heads, head_dim] -> the same; each half to its own."""
    rows, *rest = query.shape
    halves = query.reshape(rows // 2, 2, *rest)
    attended = [
        attend_rows(halves[:, half], keys_values, implementation=implementation)
        for half, keys_values in enumerate(pair)
    ]
    return jnp.stack(attended, axis=1).reshape(query.shape)


def _constrain_heads(x: Array) -> Array:
    """[b, tokens, heads, head_dim], split over rows and heads."""
    return axes.constrain(x, axes.BATCH, None, axes.HEADS, None)


def _project_heads(x: Array, width: int, dtype: jnp.dtype) -> Array:
    names = (axes.HEADS, axes.HEAD_DIM, axes.EMBED)
    return dense(width, names, dtype, contract=2, name="output")(x)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values."""

    heads: int
    dropout: float
    dtype: jnp.dtype
    implementation: str = "xla"

    def __call__(self, x: Array, mask: Array | np.ndarray | None = None) -> Array:
        """[b, tokens, width] -> the same; `mask` [tokens, tokens] as in `attend`."""
        return self._attend(x, mask, None)[0]

    def extend(self, x: Array, earlier: KeysValues, mask: Array | np.ndarray | None = None) -> tuple[Array, KeysValues]:
        """The same for tokens that follow others, of which only keys and values are left.

        Args:
            x: the new tokens [b, n, width].
            earlier: [b, m, heads, head_dim] of the tokens before them; m may be 0.
            mask: boolean [n, m + n] as in `attend`, or None.

        Returns:
            The new tokens' result, and the keys and values of all m + n.
        """
        return self._attend(x, mask, earlier)

    @nn.compact
    def _attend(
        self, x: Array, mask: Array | np.ndarray | None, earlier: KeysValues | None
    ) -> tuple[Array, KeysValues]:
        width = x.shape[-1]
        names = (axes.EMBED, axes.QKV, axes.HEADS, axes.HEAD_DIM)
        qkv = dense((3, self.heads, width // self.heads), names, self.dtype, name="qkv")(x)
        qkv = axes.constrain(qkv, axes.BATCH, None, None, axes.HEADS, None)
        query, keys_values = qkv[:, :, 0], KeysValues(qkv[:, :, 1], qkv[:, :, 2])
        if earlier is not None:
            keys_values = append_tokens(earlier, keys_values)
        x = attend(query, keys_values, mask, Dropout(self.dropout), self.implementation)
        return Dropout(self.dropout)(_project_heads(x, width, self.dtype)), keys_values


class CrossKeysValues(nn.Module):
    """The side of cross-attention that depends on the condition alone: made once, used at every time step."""

    heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, condition: Array) -> KeysValues:
        """[b, tokens, width] -> keys and values [b, tokens, heads, head_dim]."""
        shape = (self.heads, condition.shape[-1] // self.heads)
        names = (axes.EMBED, axes.HEADS, axes.HEAD_DIM)
        key = dense(shape, names, self.dtype, name="key")(condition)
        value = dense(shape, names, self.dtype, name="value")(condition)
        return KeysValues(_constrain_heads(key), _constrain_heads(value))


class CrossAttention(nn.Module):
    """Multi-head cross-attention from tokens to keys and values made by `CrossKeysValues`."""

    heads: int
    dropout: float
    dtype: jnp.dtype
    implementation: str = "xla"

    @nn.compact
    def __call__(self, x: Array, keys_values: KeysValues | GuidedPair, mask: Array | np.ndarray | None = None) -> Array:
        """[b * r, q, width] attending to [b, k, heads, head_dim] as in `attend_rows`, or to a guided pair."""
        width = x.shape[-1]
        names = (axes.EMBED, axes.HEADS, axes.HEAD_DIM)
        query = dense((self.heads, width // self.heads), names, self.dtype, name="query")(x)
        query = _constrain_heads(query)
        if isinstance(keys_values, GuidedPair):
            x = attend_pairs(query, keys_values, self.implementation)
        else:
            x = attend_rows(query, keys_values, mask, Dropout(self.dropout), self.implementation)
        return Dropout(self.dropout)(_project_heads(x, width, self.dtype))
