"""Multi-head attention: self (whole or cached), cross (keys and values made separately), MRAR's block-causal mask."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from transdiff_jax.nn.dropout import Dropout
from transdiff_jax.nn.flash import flash_attend
from transdiff_jax.nn.layers import dense, repeat_rows
from transdiff_jax.nn.qkv import QkvProjection, constrain_heads
from transdiff_jax.parallel import axes


class KeysValues(NamedTuple):
    """Keys and values of tokens."""

    key: Float[Array, "*lead tokens heads head_dim"]
    value: Float[Array, "*lead tokens heads head_dim"]


def append_tokens(earlier: KeysValues, new: KeysValues) -> KeysValues:
    """Puts the new tokens after the earlier ones."""
    return KeysValues(*(jnp.concatenate(pair, axis=-3) for pair in zip(earlier, new, strict=True)))


def block_causal_mask(block_sizes: tuple[int, ...]) -> Bool[np.ndarray, "tokens tokens"]:
    """A token sees its own block and every earlier one (True: may attend).

    In MRAR the blocks are the class tokens and one group of tokens for each image (paper, section 3.3).
    """
    block = np.repeat(np.arange(len(block_sizes)), block_sizes)
    return block[:, None] >= block[None, :]


def attend(
    query: Float[Array, "b q heads head_dim"],
    keys_values: KeysValues,
    mask: Bool[Array | np.ndarray, "q k"] | None = None,
    drop: Callable[[Float[Array, "b heads q k"]], Float[Array, "b heads q k"]] | None = None,
    implementation: str = "xla",
) -> Float[Array, "b q heads head_dim"]:
    """Scaled dot-product attention with the softmax in float32.

    Args:
        query: of the tokens that attend.
        keys_values: of the k tokens to attend to, [b, k, heads, head_dim].
        mask: True where a query may attend; None for everywhere.
        drop: applied to the attention weights, before the division by their sum; "cudnn" and "flash" ignore it, because
            they never store the weights.
        implementation: "xla", "cudnn" or "flash"; see `model.mesh_checks.check_implementation`.

    Raises:
        ValueError: "flash" is given a mask.
    """
    key, value = keys_values
    if implementation == "cudnn":
        everywhere = None if mask is None else jnp.asarray(mask)[None, None]
        return jax.nn.dot_product_attention(query, key, value, mask=everywhere, implementation="cudnn")
    if implementation == "flash":
        if mask is not None:
            raise ValueError('"flash" takes no mask: use "xla"')
        return flash_attend(query, key, value)
    # Heads first, and the softmax's division last: it is by query, not by pair of tokens, and XLA for CPUs makes both
    # products several times faster than with the heads in the middle.
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query * query.shape[-1] ** -0.5, key, value))
    logits = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32)
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
    weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
    total = weights.sum(axis=-1, keepdims=True)
    weights = weights.astype(value.dtype)
    weights = weights if drop is None else drop(weights)
    x = jnp.einsum("bhqk,bhkd->bhqd", weights, value, preferred_element_type=jnp.float32) / total
    return jnp.swapaxes(x.astype(value.dtype), 1, 2)


def attend_rows(
    query: Float[Array, "rows q heads head_dim"],
    keys_values: KeysValues,
    mask: Bool[Array | np.ndarray, "long_q k"] | None = None,
    drop: Callable[[Float[Array, "b heads long_q k"]], Float[Array, "b heads long_q k"]] | None = None,
    implementation: str = "xla",
) -> Float[Array, "rows q heads head_dim"]:
    """`attend` from r rows for each of b conditions; the rows of one condition are together.

    They attend as one long query of r * q tokens, so that a condition's keys and values are not repeated.

    Args:
        query: b * r rows.
        keys_values: of the b conditions, [b, k, heads, head_dim].
        mask: for the long query, as in `attend`.
        drop: as in `attend`.
        implementation: as in `attend`.
    """
    rows, tokens, *head = query.shape
    conditions = len(keys_values.key)
    long = query.reshape(conditions, rows // conditions * tokens, *head)
    return attend(long, keys_values, mask, drop, implementation).reshape(query.shape)


def _project_heads(
    x: Float[Array, "b tokens heads head_dim"], width: int, dtype: DTypeLike
) -> Float[Array, "b tokens {width}"]:
    names = (axes.HEADS, axes.HEAD_DIM, axes.EMBED)
    return dense(width, names, dtype, contract=2, name="output")(x)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused parameter for queries, keys and values."""

    heads: int
    weight_dropout: float  # rate, on attention weights
    dropout: float  # rate, on the output
    dtype: DTypeLike
    implementation: str = "xla"

    def __call__(
        self, x: Float[Array, "b tokens width"], mask: Bool[Array | np.ndarray, "tokens tokens"] | None = None
    ) -> Float[Array, "b tokens width"]:
        """Attends among all tokens, with a mask as in `attend`."""
        return self._attend(x, mask, None)[0]

    def extend(
        self,
        x: Float[Array, "b tokens width"],
        earlier: KeysValues,
        mask: Bool[Array | np.ndarray, "tokens all_tokens"] | None = None,
    ) -> tuple[Float[Array, "b tokens width"], KeysValues]:
        """Attends from new tokens to themselves and to earlier ones, whose keys and values are given.

        Args:
            x: the new tokens.
            earlier: of the m earlier tokens, [b, m, heads, head_dim]; m may be 0.
            mask: from the new tokens to the earlier and then the new ones, as in `attend`.

        Returns:
            The new tokens' result, and the keys and values of all tokens.
        """
        return self._attend(x, mask, earlier)

    @nn.compact
    def _attend(
        self,
        x: Float[Array, "b tokens width"],
        mask: Bool[Array | np.ndarray, "tokens all_tokens"] | None,
        earlier: KeysValues | None,
    ) -> tuple[Float[Array, "b tokens width"], KeysValues]:
        width = x.shape[-1]
        query, key, value = QkvProjection(self.heads, self.dtype, name="qkv")(x)
        keys_values = KeysValues(key, value)
        if earlier is not None:
            keys_values = append_tokens(earlier, keys_values)
        x = attend(query, keys_values, mask, Dropout(self.weight_dropout), self.implementation)
        return Dropout(self.dropout)(_project_heads(x, width, self.dtype)), keys_values


class CrossKeysValues(nn.Module):
    """The side of cross-attention that depends on the condition alone: made once, used at every time step."""

    heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, condition: Float[Array, "b tokens width"]) -> KeysValues:
        """Keys and values of a condition's tokens."""
        shape = (self.heads, condition.shape[-1] // self.heads)
        names = (axes.EMBED, axes.HEADS, axes.HEAD_DIM)
        key = dense(shape, names, self.dtype, name="key")(condition)
        value = dense(shape, names, self.dtype, name="value")(condition)
        return KeysValues(constrain_heads(key), constrain_heads(value))


class CrossAttention(nn.Module):
    """Multi-head cross-attention from tokens to keys and values made by `CrossKeysValues`."""

    heads: int
    weight_dropout: float  # rate, on attention weights
    dropout: float  # rate, on the output
    dtype: DTypeLike
    implementation: str = "xla"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "rows q width"],
        keys_values: KeysValues,
        mask: Bool[Array | np.ndarray, "long_q k"] | None = None,
    ) -> Float[Array, "more_rows q width"]:
        """Attends to the keys and values of conditions as in `attend_rows`.

        If there are more conditions than rows, each row attends to several, which are adjacent, and the result has a
        row for each condition.
        """
        width = x.shape[-1]
        names = (axes.EMBED, axes.HEADS, axes.HEAD_DIM)
        query = dense((self.heads, width // self.heads), names, self.dtype, name="query")(x)
        query = repeat_rows(constrain_heads(query), len(keys_values.key))
        x = attend_rows(query, keys_values, mask, Dropout(self.weight_dropout), self.implementation)
        return Dropout(self.dropout)(_project_heads(x, width, self.dtype))
