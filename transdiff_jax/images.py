"""Images as people see them: 8-bit pixels, grids, PNG files."""

import io
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from transdiff_jax.files import write_bytes

Array = jax.Array


def to_uint8(images: Array) -> Array:
    """[-1, 1] -> round(clip(255 (x + 1) / 2, 0, 255)), the rounding of the published scores; any shape."""
    return jnp.round(jnp.clip(255 * (images + 1) / 2, 0, 255)).astype(jnp.uint8)


def grid(images: np.ndarray, rows: int, *, scale: int = 1, gap: int = 2) -> np.ndarray:
    """Images in reading order as one picture.

    Args:
        images: uint8 [n, height, width, channels]; `rows` divides n.
        scale: each pixel becomes a square of this side.
        gap: white pixels between images and around them.

    Returns:
        uint8 [picture height, picture width, channels].

    Raises:
        ValueError: n is not a multiple of `rows`.
    """
    count, height, width, channels = images.shape
    if count % rows:
        raise ValueError(f"{count} images of shape {images.shape[1:]} do not fill {rows} rows")
    columns = count // rows
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    cell_height, cell_width = height * scale + gap, width * scale + gap
    picture = np.full((rows * cell_height + gap, columns * cell_width + gap, channels), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * cell_height + gap, (index % columns) * cell_width + gap
        picture[top : top + height * scale, left : left + width * scale] = image
    return picture


def name_rows(picture: np.ndarray, names: Sequence[str], *, margin: int = 4) -> np.ndarray:
    """A grid with a name on the left of each of its rows, black on white.

    Args:
        picture: uint8 [height, width, 1 or 3], `len(names)` rows of equal height.
        margin: white pixels on both sides of the names.
    """
    height, _, channels = picture.shape
    row_height = height / len(names)
    font = ImageFont.load_default(size=max(10.0, row_height / 10))
    left = round(max(font.getlength(name) for name in names)) + 2 * margin
    strip = Image.new("L", (left, height), 255)
    draw = ImageDraw.Draw(strip)
    for row, name in enumerate(names):
        draw.text((left - margin, (row + 0.5) * row_height), name, fill=0, font=font, anchor="rm")
    return np.concatenate([np.asarray(strip)[..., None].repeat(channels, axis=-1), picture], axis=1)


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
