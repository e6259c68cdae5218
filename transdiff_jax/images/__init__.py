"""Image files and pixels: decoding, encoding, and drawing grids."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.images.decoding import UnreadableImage, decode
    from transdiff_jax.images.grids import grid, name_rows
    from transdiff_jax.images.png import decode_png, encode_png, load_png, save_png
    from transdiff_jax.images.uint8 import to_uint8, to_unit_range

__all__ = [
    "UnreadableImage",
    "decode",
    "decode_png",
    "encode_png",
    "grid",
    "load_png",
    "name_rows",
    "save_png",
    "to_uint8",
    "to_unit_range",
]
