"""From the pixels of any image to what the Inception network takes."""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

SIDE = 299  # pixels; any image is resized to this square


def resize(images: Array) -> Array:
    """Bilinear resize to 299 x 299 as TensorFlow 1 does it: corner to corner, and nothing is averaged when shrinking.

    Output row i lies at input row i * height / 299, computed in float32, without the half pixel that later resizers
    add; the last row has itself as its lower neighbour. The result is torch-fidelity's to the last bit; a compiler
    that fuses multiplication and addition changes that bit.

    Args:
        images: [b, height, width, c] of any size and type.

    Returns:
        float32 [b, 299, 299, c] in the range of the images.
    """
    images = images.astype(jnp.float32)
    for axis in (2, 1):  # along rows first, as the reference: rounding depends on it
        low, high, weight = _neighbours(images.shape[axis])
        weight = np.expand_dims(weight, tuple(range(1, images.ndim - axis)))
        below, above = jnp.take(images, low, axis), jnp.take(images, high, axis)
        images = below + (above - below) * weight
    return images


def _neighbours(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input positions below and above each of the 299 output positions, and the weight of the one above."""
    position = np.arange(SIDE, dtype=np.float32) * (np.float32(size) / np.float32(SIDE))
    low = np.minimum(np.floor(position).astype(np.int32), size - 1)
    return low, np.minimum(low + 1, size - 1), (position - low).astype(np.float32)


def preprocess(images: Array) -> Array:
    """Pixels -> what the network takes.

    Args:
        images: [b, height, width, 1 or 3] in 0 … 255, uint8 usually; grey ones repeat their channel.

    Returns:
        float32 [b, 299, 299, 3], (x - 128) / 128.

    Raises:
        ValueError: not images of one or three channels.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"images must be [b, height, width, 1 or 3], got {images.shape}")
    resized = (resize(images) - 128) / 128
    return jnp.broadcast_to(resized, (*resized.shape[:-1], 3))
