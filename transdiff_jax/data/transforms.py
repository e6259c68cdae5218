"""From stored pixels to the images that the tokenizer takes."""

import numpy as np

from transdiff_jax.config import DataConfig


def to_unit_range(image: np.ndarray) -> np.ndarray:
    """uint8 0..255 -> float32 [-1, 1]."""
    return image.astype(np.float32) / 127.5 - 1


def transform(image: np.ndarray, config: DataConfig, generator: np.random.Generator) -> np.ndarray:
    """The training transform of one image; `generator` is seeded by record and epoch."""
    if config.flip and generator.random() < 0.5:
        image = image[:, ::-1]
    return to_unit_range(image)
