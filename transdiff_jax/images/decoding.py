"""Image files to pixels, as a viewer shows them: the one decoder of all sources."""

import functools
import io
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

# Formats that Pillow decodes by itself: for others it would start programs (EPS: Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_PIXELS = 2**26  # 64 million; a small file can claim to hold any number

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SRGB = ImageCms.createProfile("sRGB")


class UnreadableImage(ValueError):  # noqa: N818 (what it is about, not what went wrong in the program)
    """The bytes hold no image that can be shown; the message is the reason, in a few words."""


def decode(data: bytes, channels: int) -> np.ndarray:
    """The pixels of an image file (the first image of an animation), whatever its name says it is.

    EXIF orientation and ICC profiles (to sRGB) are applied, transparent pixels lie on white, 16 bits are scaled to 8.
    PNG's gAMA and cHRM are left alone.

    Args:
        data: the file.
        channels: 1 for grey, 3 for RGB.

    Returns:
        uint8 [height, width, channels].

    Raises:
        UnreadableImage: the file is empty, cut short, damaged, too large, or no image of `FORMATS`.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        picture = _shown(data).convert("L" if channels == 1 else "RGB")
    except (UnreadableImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(f"not an image file of {', '.join(FORMATS)}") from None
    except Exception as error:  # Pillow raises nearly anything on damaged files
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UnreadableImage(reason) from None
    return np.asarray(picture).reshape(picture.height, picture.width, channels)


def _shown(data: bytes) -> Image.Image:
    """The image as a viewer shows it, in mode L, RGB or CMYK."""
    picture = Image.open(io.BytesIO(data), formats=FORMATS)
    if picture.width * picture.height > MAX_PIXELS:
        raise UnreadableImage(f"{picture.width}x{picture.height} pixels are more than {MAX_PIXELS}")
    picture.load()
    colour, alpha = _split(picture)
    colour = _to_srgb(colour, picture.info.get("icc_profile"))
    if alpha is not None:
        colour = Image.composite(colour, Image.new(colour.mode, colour.size, "white"), alpha)
    turn = _TURNS.get(_orientation(picture))
    return colour if turn is None else colour.transpose(turn)


def _split(picture: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colours (mode L, RGB or CMYK) and, where there is one, the opacity (mode L)."""
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PPM"):
        levels = np.asarray(picture).astype(np.int64)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8)), None
    if picture.mode in ("I", "F"):
        raise UnreadableImage(f"{picture.format} with pixels of mode {picture.mode}, whose range is not known")
    grey = picture.mode in ("1", "L", "LA", "La")
    if picture.has_transparency_data:
        *bands, alpha = picture.convert("LA" if grey else "RGBA").split()
        return (bands[0] if grey else Image.merge("RGB", bands)), alpha
    if picture.mode in ("L", "RGB", "CMYK"):
        return picture, None
    return picture.convert("L" if grey else "RGB"), None


def _to_srgb(colour: Image.Image, profile: bytes | None) -> Image.Image:
    conversion = _conversion(profile, colour.mode) if profile else None
    return colour if conversion is None else ImageCms.applyTransform(colour, conversion)


@functools.lru_cache(maxsize=32)  # the images of a dataset share few profiles
def _conversion(profile: bytes, mode: str) -> Any:
    """The transform from a profile to sRGB; None where viewers make none: it is sRGB, damaged, or of another mode."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if mode == "RGB" and ImageCms.getProfileDescription(source).startswith("sRGB"):
            return None
        return ImageCms.buildTransform(source, _SRGB, mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


def _orientation(picture: Image.Image) -> Any:
    try:
        return picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF: viewers show the image as it is stored
        return None
