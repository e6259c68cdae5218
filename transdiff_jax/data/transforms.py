"""From stored pixels to the images that the tokenizer takes."""

import numpy as np
from PIL import Image

from transdiff_jax.config import DataConfig


def to_unit_range(image: np.ndarray) -> np.ndarray:
    """uint8 0..255 -> float32 [-1, 1]."""
    return image.astype(np.float32) / 127.5 - 1


def random_square(image: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """A random square of the full short side, resized bicubically; uint8 [height, width, c] -> [size, size, c]."""
    height, width, channels = image.shape
    side = min(height, width)
    top, left = generator.integers(height - side + 1), generator.integers(width - side + 1)
    square = image[top : top + side, left : left + side]
    picture = Image.fromarray(square[..., 0] if channels == 1 else square).resize(
        (size, size), Image.Resampling.BICUBIC
    )
    return np.asarray(picture).reshape(size, size, channels)


def transform(image: np.ndarray, config: DataConfig, generator: np.random.Generator) -> np.ndarray:
    """The training transform of one image; `generator` is seeded by record and epoch.

    Returns:
        float32 [image_size, image_size, channels] in [-1, 1].
    """
    if config.crop == "random":
        image = random_square(image, config.image_size, generator)
    if config.flip and generator.random() < 0.5:
        image = image[:, ::-1]
    return to_unit_range(image)
