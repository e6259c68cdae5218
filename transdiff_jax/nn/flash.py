"""JAX's Pallas kernel for attention on TPUs, which never stores a matrix of logits."""

import jax.numpy as jnp
from jax import Array
from jax.experimental.pallas.ops.tpu import flash_attention as kernel
from jaxtyping import Float, Int

from transdiff_jax.parallel import axes

_BLOCK = 128  # tokens; the kernel takes whole blocks
_MOST = 512  # tokens of a block of queries or of keys: fewer, larger blocks are faster


def flash_attend(
    query: Float[Array, "b q heads head_dim"],
    key: Float[Array, "b k heads head_dim"],
    value: Float[Array, "b k heads head_dim"],
) -> Float[Array, "b q heads head_dim"]:
    """Scaled dot-product attention to all keys, on each device for its rows and heads.

    Lengths that are no multiple of 128 are filled up; the added keys are hidden.
    """
    run = axes.on_each_device(_attend, axes.BATCH, None, axes.HEADS, None)
    return run(query, key, value)


def _attend(query: Array, key: Array, value: Array) -> Array:
    tokens, others, scale = query.shape[1], key.shape[1], query.shape[-1] ** -0.5
    query, key, value = (_fill(array).swapaxes(1, 2) for array in (query, key, value))
    segments = None
    if key.shape[2] != others:
        segments = kernel.SegmentIds(_segments(query, query.shape[2]), _segments(key, others))
    made = kernel.flash_attention(
        query, key, value, None, segments, sm_scale=scale, block_sizes=_block_sizes(query.shape[2], key.shape[2])
    )
    return made.swapaxes(1, 2)[:, :tokens]


def _fill(x: Array) -> Array:
    """[b, tokens, ...] with zeros up to whole blocks of tokens."""
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % _BLOCK), (0, 0), (0, 0)))


def _segments(x: Array, real: int) -> Int[Array, "b tokens"]:
    """0 for the first `real` tokens and 1 for the others; tokens attend within their segment."""
    batch, _, tokens, _ = x.shape
    return jnp.broadcast_to((jnp.arange(tokens) >= real).astype(jnp.int32), (batch, tokens))


def _block_sizes(queries: int, keys: int) -> kernel.BlockSizes:
    """The largest blocks that divide the tokens, forward and backward."""
    q, k = (max(size for size in range(_BLOCK, _MOST + 1, _BLOCK) if count % size == 0) for count in (queries, keys))
    return kernel.BlockSizes(q, k, k, 1, q, k, k, q, k, k, q)
