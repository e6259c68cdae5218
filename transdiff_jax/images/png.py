"""Images as people see them: 8-bit pixels, grids, PNG files."""

import io
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from transdiff_jax.storage.files import write_bytes

Array = jax.Array


def encode_png(image: np.ndarray) -> bytes:
    """The PNG file of uint8 [height, width, 1 or 3]; lossless."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, format="PNG")
    return buffer.getvalue()


def save_png(path: Path, image: np.ndarray) -> None:
    """Writes uint8 [height, width, 1 or 3] losslessly; the file appears whole or not at all."""
    write_bytes(path, encode_png(image))


def load_png(path: Path, channels: int) -> np.ndarray:
    """uint8 [height, width, channels] of a PNG with 1 (grey) or 3 (RGB) channels."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)
