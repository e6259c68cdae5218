"""Between pixels of 8 bits and the numbers that networks work on."""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def to_uint8(images: Array) -> Array:
    """[-1, 1] -> round(clip(255 (x + 1) / 2, 0, 255)), the rounding of the published scores; any shape."""
    return jnp.round(jnp.clip(255 * (images + 1) / 2, 0, 255)).astype(jnp.uint8)


def to_unit_range(image: np.ndarray) -> np.ndarray:
    """uint8 0..255 -> float32 [-1, 1]."""
    return image.astype(np.float32) / 127.5 - 1
