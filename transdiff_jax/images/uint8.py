"""Between 8-bit pixels and the numbers that networks work on."""

from typing import overload

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, UInt8

# 1 / 127.5 as a sum. Compilers turn a division by a constant into a product with its rounded inverse, which differs
# in the last bit. The first part has so few bits that its product with 8 bits is exact.
_HIGH = np.float32(32897 / 2**22)
_LOW = np.float32(1 / 127.5 - 32897 / 2**22)


def to_uint8(images: Float[Array, "*shape"]) -> UInt8[Array, "*shape"]:
    """[-1, 1] -> round(clip(255 (x + 1) / 2, 0, 255)), the rounding of the published scores."""
    return jnp.round(jnp.clip(255 * (images + 1) / 2, 0, 255)).astype(jnp.uint8)


@overload
def to_unit_range(image: UInt8[Array, "*shape"]) -> Float[Array, "*shape"]: ...
@overload
def to_unit_range(image: UInt8[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]: ...


def to_unit_range(image: UInt8[Array | np.ndarray, "*shape"]) -> Float[Array | np.ndarray, "*shape"]:
    """0..255 -> [-1, 1]: the float32 of x / 127.5 - 1, with the same bits in NumPy and on every device."""
    levels = image.astype(np.float32)
    return levels * _HIGH + levels * _LOW - 1
