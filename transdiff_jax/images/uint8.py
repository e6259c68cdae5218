"""Between 8-bit pixels and the numbers that networks work on."""

from typing import overload

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, UInt8


def to_uint8(images: Float[Array, "*shape"]) -> UInt8[Array, "*shape"]:
    """[-1, 1] -> round(clip(255 (x + 1) / 2, 0, 255)), the rounding of the published scores."""
    return jnp.round(jnp.clip(255 * (images + 1) / 2, 0, 255)).astype(jnp.uint8)


@overload
def to_unit_range(image: UInt8[Array, "*shape"]) -> Float[Array, "*shape"]: ...
@overload
def to_unit_range(image: UInt8[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]: ...


def to_unit_range(image: UInt8[Array | np.ndarray, "*shape"]) -> Float[Array | np.ndarray, "*shape"]:
    """0..255 -> [-1, 1], in float32."""
    return image.astype(np.float32) / 127.5 - 1
