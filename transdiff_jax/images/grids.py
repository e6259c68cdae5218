"""Many images as one picture."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont


def grid(
    images: UInt8[np.ndarray, "n height width channels"], rows: int, *, scale: int = 1, gap: int = 2
) -> UInt8[np.ndarray, "picture_height picture_width channels"]:
    """Draws images in reading order as one picture.

    Args:
        images: of one size.
        rows: number of rows; it must divide n.
        scale: each pixel becomes a square of this side.
        gap: white pixels between images and around them.

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


def name_rows(
    picture: UInt8[np.ndarray, "height width channels"], names: Sequence[str], *, margin: int = 4
) -> UInt8[np.ndarray, "height wider channels"]:
    """Puts a name to the left of each row of a grid, black on white.

    Args:
        picture: a grid with `len(names)` rows of equal height, in grey or RGB.
        names: of the rows.
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
