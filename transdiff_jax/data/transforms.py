"""Crops, resizes and flips stored pixels, which stay 8-bit until they are on a device."""

import numpy as np
from PIL import Image

from transdiff_jax.config import DataConfig


def _picture(image: np.ndarray) -> Image.Image:
    """uint8 [height, width, c] for Pillow, whose grey images have no axis of channels."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def random_square(image: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """A random square of the full short side, resized bicubically: uint8 [height, width, c] -> [size, size, c]."""
    height, width, channels = image.shape
    side = min(height, width)
    top, left = generator.integers(height - side + 1), generator.integers(width - side + 1)
    square = image[top : top + side, left : left + side]
    picture = _picture(square).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture).reshape(size, size, channels)


def center_square(image: np.ndarray, size: int) -> np.ndarray:
    """The middle square, as in ADM's evaluation data: uint8 [height, width, c] -> [size, size, c].

    The image is halved by averaging while its short side is at least twice `size`, then resized bicubically so that
    the short side is `size`, then cropped.
    """
    picture = _picture(image)
    while min(picture.size) >= 2 * size:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    scale = size / min(picture.size)
    # Python's round (half to even), like ADM, because the long side decides where the square lies.
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    top, left = (picture.height - size) // 2, (picture.width - size) // 2
    return np.asarray(picture).reshape(picture.height, picture.width, -1)[top : top + size, left : left + size]


def transform(image: np.ndarray, config: DataConfig, generator: np.random.Generator) -> np.ndarray:
    """The training transform of one image.

    Args:
        image: uint8 [height, width, c]; without a crop, it must have the configured size already.
        config: crop, size and flip.
        generator: seeded by record and epoch.

    Returns:
        uint8 [image_size, image_size, channels].
    """
    if config.crop == "random":
        image = random_square(image, config.image_size, generator)
    elif config.crop == "center":
        image = center_square(image, config.image_size)
    if config.flip and generator.random() < 0.5:
        image = image[:, ::-1]
    return image
