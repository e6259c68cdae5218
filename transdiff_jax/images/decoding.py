"""Image files to pixels, as a viewer shows them: the one decoder for all sources."""

import functools
import io
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

# Formats that Pillow decodes by itself; for others it would start programs (EPS: Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_PIXELS = 2**26  # 64 million; a small file can claim any number

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


class UnreadableImage(ValueError):  # noqa: N818 (it describes the data, not an error in the program)
    """The bytes are not an image that can be shown; the message gives the reason in a few words."""


def decode(data: bytes, channels: int) -> UInt8[np.ndarray, "height width {channels}"]:
    """The pixels of an image file, or of the first image of an animation. The file's name does not matter.

    EXIF orientation is applied, ICC profiles are converted to sRGB, transparent pixels lie on white, and 16 bits are
    scaled to 8. PNG's gAMA and cHRM are ignored.

    Args:
        data: the file.
        channels: 1 for grey, 3 for RGB.

    Raises:
        UnreadableImage: the file is empty, cut short, damaged, too large, or not an image in one of `FORMATS`.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        return pixels_of(_opened(data), channels)
    except (UnreadableImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(f"not an image file of {', '.join(FORMATS)}") from None
    except Exception as error:  # Pillow raises nearly anything on damaged files
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UnreadableImage(reason) from None


def pixels_of(picture: Image.Image, channels: int) -> UInt8[np.ndarray, "height width {channels}"]:
    """The pixels of Pillow's image, as `decode` makes them.

    Raises:
        UnreadableImage: its pixels have no known range.
    """
    shown = _shown(picture).convert("L" if channels == 1 else "RGB")
    return np.asarray(shown).reshape(shown.height, shown.width, channels)


def _opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data), formats=FORMATS)
    if picture.width * picture.height > MAX_PIXELS:
        raise UnreadableImage(f"{picture.width}x{picture.height} pixels are more than {MAX_PIXELS}")
    picture.load()
    return picture


def _shown(picture: Image.Image) -> Image.Image:
    """The image as a viewer shows it, in mode L, RGB or CMYK."""
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
        raise UnreadableImage(f"{picture.format} with pixels of mode {picture.mode}, whose range is unknown")
    grey = picture.mode in ("1", "L", "LA", "La")
    if picture.has_transparency_data:
        *bands, alpha = picture.convert("LA" if grey else "RGBA").split()
        return (bands[0] if grey else Image.merge("RGB", bands)), alpha
    if picture.mode in ("L", "RGB", "CMYK"):
        return picture, None
    return picture.convert("L" if grey else "RGB"), None


def _to_srgb(colour: Image.Image, profile: bytes | None) -> Image.Image:
    conversion = _conversion(profile, colour.mode) if profile else None
    if conversion is None:
        return colour
    return ImageCms.applyTransform(colour, conversion) or colour  # None is for transforms in place


@functools.lru_cache(maxsize=32)  # the images of a dataset share few profiles
def _conversion(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from a profile to sRGB.

    None if viewers apply none, because the profile is sRGB, damaged, or made for another mode.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if mode == "RGB" and ImageCms.getProfileDescription(source).startswith("sRGB"):
            return None
        return ImageCms.buildTransform(source, _SRGB, mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


def _orientation(picture: Image.Image) -> Any:
    try:
        return picture.getexif().get(ExifTags.Base.Orientation)  # of any type: the file says which
    except Exception:  # viewers ignore damaged EXIF
        return None
