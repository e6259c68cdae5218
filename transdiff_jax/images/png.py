"""Writes and reads PNG files."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from transdiff_jax.storage.files import write_bytes


def encode_png(image: UInt8[np.ndarray, "height width channels"]) -> bytes:
    """The bytes of a lossless PNG file, for 1 (grey) or 3 (RGB) channels."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, format="PNG")
    return buffer.getvalue()


def save_png(path: Path, image: UInt8[np.ndarray, "height width channels"]) -> None:
    """Writes a lossless PNG file of 1 (grey) or 3 (RGB) channels; it appears whole or not at all."""
    write_bytes(path, encode_png(image))


def load_png(path: Path, channels: int) -> UInt8[np.ndarray, "height width {channels}"]:
    """The pixels of a PNG file with 1 (grey) or 3 (RGB) channels."""
    return decode_png(path.read_bytes(), channels)


def decode_png(data: bytes, channels: int) -> UInt8[np.ndarray, "height width {channels}"]:
    """The pixels of the bytes of such a file."""
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)
