"""Many images as one picture."""

from collections.abc import Sequence

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Array = jax.Array


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
