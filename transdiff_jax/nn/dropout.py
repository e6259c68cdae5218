"""Dropout whose masks are bytes: one block of random bits decides eight elements.

A float for each element, as in Flax, costs a block for each element, and then the masks cost as much as the matrix
products.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.random import threefry2x32_p
from jaxtyping import Bool, Float, Key, UInt32

LEVELS = 256  # values of a byte
BLOCK = 8  # bytes in a block of random bits: two words of four bytes

Words = tuple[UInt32[Array, "*shape"], UInt32[Array, "*shape"]]


def dropped_levels(rate: float) -> int:
    """The number of byte values, of 256, that drop an element: the rate is rounded to a multiple of 1/256.

    A rate above 0 never rounds to 0, and no rate to 1. A rate of 0.1 becomes 26/256 = 0.1016.

    Args:
        rate: in [0, 1).
    """
    return min(max(round(rate * LEVELS), 1), LEVELS - 1) if rate > 0 else 0


def keep_mask(key: Key[Array, ""], rate: float, shape: tuple[int, ...]) -> Bool[Array, "*shape"]:
    """True where an element is kept, independently for each element.

    The mask is a function of key, rate and shape, whatever the mesh.

    Args:
        key: a Threefry key, whose bits every device draws for its own elements; or a key of another kind, whose bits
            every device draws for all elements.
        rate: as in `dropped_levels`.
        shape: of the mask, with at least one axis.
    """
    # The elements of a block lie along the last axis but one. The last axis stays whole, which is what vector units
    # read, and it may be split over devices.
    *lead, size, last = shape if len(shape) > 1 else (*shape, 1)
    blocks = (*lead, -(-size // BLOCK), last)
    draw = _threefry_words if jax.random.key_impl(key) == "threefry2x32" else _words
    # The barrier keeps the compiler from drawing a block again for each of its elements.
    first, second = (word[..., None, :] for word in jax.lax.optimization_barrier(draw(key, blocks)))
    byte = jnp.arange(BLOCK, dtype=jnp.uint32)[:, None]
    shift, of_first = byte % 4 * 8, (LEVELS - 1) * (byte < 4).astype(jnp.uint32)
    # Not `jnp.where`: JAX would take its condition, in the shape of the mask, out of a scan and keep it in memory.
    levels = ((first >> shift) & of_first) | ((second >> shift) & (LEVELS - 1 - of_first))
    padded = levels.reshape(*lead, blocks[-2] * BLOCK, last)
    return (padded[..., :size, :] >= dropped_levels(rate)).reshape(shape)


def _words(key: Key[Array, ""], shape: tuple[int, ...]) -> Words:
    first, second = jax.random.bits(key, (2, *shape), jnp.uint32)
    return first, second


def _threefry_words(key: Key[Array, ""], shape: tuple[int, ...]) -> Words:
    """Both words of each block. `jax.random.bits` folds the two into one, which takes twice as many blocks."""
    rest = shape[1:]
    # A block's number has two words: its row, and its place in the row. One word could overflow.
    row = jax.lax.broadcasted_iota(jnp.uint32, shape, 0)
    place = jnp.broadcast_to(jnp.arange(math.prod(rest), dtype=jnp.uint32).reshape(1, *rest), shape)
    words = [jnp.broadcast_to(word, shape) for word in jax.random.key_data(key)]
    first, second = threefry2x32_p.bind(*words, row, place)
    return first, second


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _drop(x: Float[Array, "*shape"], keep: Bool[Array, "*shape"], scale: float) -> Float[Array, "*shape"]:
    # A product, because JAX would take the zeros of `jnp.where` out of a scan, and XLA would read them from memory.
    return x * scale * keep.astype(x.dtype)


def _drop_forward(
    x: Float[Array, "*shape"], keep: Bool[Array, "*shape"], scale: float
) -> tuple[Float[Array, "*shape"], Bool[Array, "*shape"]]:
    # JAX would keep the mask as floats for the backward pass.
    return _drop(x, keep, scale), keep


def _drop_backward(
    scale: float, keep: Bool[Array, "*shape"], cotangent: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], None]:
    return _drop(cotangent, keep, scale), None


_drop.defvjp(_drop_forward, _drop_backward)


class Dropout(nn.Module):
    """Dropout that is on exactly where the caller supplies a "dropout" key; it keeps the mean of each element."""

    rate: float  # in [0, 1); applied as in `dropped_levels`

    @nn.compact
    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        if self.rate == 0 or not self.has_rng("dropout"):
            return x
        keep = keep_mask(self.make_rng("dropout"), self.rate, x.shape)
        return _drop(x, keep, LEVELS / (LEVELS - dropped_levels(self.rate)))
