"""From the pixels of any image to the input of the Inception network."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, Int, Shaped

SIDE = 299  # pixels; any image is resized to this square


def resize(
    images: Shaped[Array | np.ndarray, "b height width channels"],
) -> Float32[Array, "b 299 299 channels"]:
    """Bilinear resize to 299 x 299 as in TensorFlow 1: from corner to corner, without averaging when shrinking.

    Output row i lies at input row i * height / 299, computed in float32, without the half pixel that later resizers
    add. The last row is its own lower neighbour. The result equals torch-fidelity's to the last bit; a compiler that
    fuses multiplication and addition changes that bit.

    Args:
        images: of any size and type.

    Returns:
        The resized images, in the range of the input.
    """
    resized = jnp.astype(images, jnp.float32)
    for axis in (2, 1):  # along rows first, as in torch-fidelity: rounding depends on the order
        low, high, weight = _neighbours(resized.shape[axis])
        weight = np.expand_dims(weight, tuple(range(1, resized.ndim - axis)))
        below, above = jnp.take(resized, low, axis), jnp.take(resized, high, axis)
        resized = below + (above - below) * weight
    return resized


def _neighbours(size: int) -> tuple[Int[np.ndarray, " 299"], Int[np.ndarray, " 299"], Float[np.ndarray, " 299"]]:
    """Input positions below and above each of the 299 output positions, and the weight of the position above."""
    position = np.arange(SIDE, dtype=np.float32) * (np.float32(size) / np.float32(SIDE))
    low = np.minimum(np.floor(position).astype(np.int32), size - 1)
    return low, np.minimum(low + 1, size - 1), (position - low).astype(np.float32)


def preprocess(images: Shaped[Array | np.ndarray, "b height width channels"]) -> Float32[Array, "b 299 299 3"]:
    """Pixels -> the input of the network.

    Args:
        images: 1 or 3 channels in 0 … 255, usually uint8; grey images repeat their channel.

    Returns:
        The resized images as (x - 128) / 128.

    Raises:
        ValueError: the images do not have 4 axes, or not 1 or 3 channels.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"images must be [b, height, width, 1 or 3], got {images.shape}")
    resized = (resize(images) - 128) / 128
    return jnp.broadcast_to(resized, (*resized.shape[:-1], 3))
