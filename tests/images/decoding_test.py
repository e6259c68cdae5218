import concurrent.futures
import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.support.photos import crop, encoded
from transdiff_jax.images import decoding
from transdiff_jax.images.decoding import UnreadableImage, decode

PHOTO = crop("china", 3)
GREY = np.asarray(Image.fromarray(PHOTO).convert("L"))
RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def close(made, expected, atol):
    assert made.shape == expected.shape
    assert np.abs(made.astype(int) - expected).max() <= atol


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_come_back(kind):
    np.testing.assert_array_equal(decode(encoded(PHOTO, kind), 3), PHOTO)
    np.testing.assert_array_equal(decode(encoded(GREY, kind), 1)[..., 0], GREY)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_lossy_formats_come_close(kind):
    made = decode(encoded(PHOTO, kind), 3)
    assert np.abs(made.astype(int) - PHOTO).mean() < 12
    np.testing.assert_array_equal(made, np.asarray(Image.open(io.BytesIO(encoded(PHOTO, kind))).convert("RGB")))


def test_grey_and_colour_become_what_is_asked_for():
    np.testing.assert_array_equal(decode(encoded(GREY), 3), np.repeat(GREY[..., None], 3, axis=-1))
    luminance = PHOTO @ [0.299, 0.587, 0.114]
    close(decode(encoded(PHOTO), 1)[..., 0], luminance, 1)


TURNED = {
    1: PHOTO,
    2: PHOTO[:, ::-1],
    3: PHOTO[::-1, ::-1],
    4: PHOTO[::-1],
    5: PHOTO.transpose(1, 0, 2),
    6: np.rot90(PHOTO, -1),
    7: PHOTO[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(PHOTO, 1),
}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", TURNED)
def test_orientation(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    made = decode(encoded(PHOTO, kind, exif=exif, **options), 3)
    close(made, TURNED[orientation], 6 if kind == "JPEG" else 0)


def test_damaged_exif_is_left_alone():
    np.testing.assert_array_equal(decode(encoded(PHOTO, exif=b"Exif\0\0garbage"), 3), PHOTO)


def test_cmyk_jpeg_is_not_a_negative():
    # Pillow inverts the inks, as Adobe does.
    cmyk = Image.fromarray(PHOTO).convert("CMYK")
    file = encoded(cmyk, "JPEG", quality=100)
    close(decode(file, 3), PHOTO, 12)


def with_ycck(file):
    """Declares a CMYK JPEG (with Adobe's marker) to be YCCK: the transform byte of APP14 becomes 2."""
    place = file.index(b"Adobe") + 11
    assert file[place] == 0
    return file[:place] + b"\2" + file[place + 1 :]


def test_ycck_jpeg():
    # Such a file holds the luminance and chrominance of the inks C, M and Y, and 255 - K. (Pillow writes 255 - band.)
    inks = Image.fromarray(255 - PHOTO).convert("YCbCr").split()
    bands = [Image.fromarray(255 - np.asarray(band)) for band in (*inks, Image.new("L", inks[0].size, 255))]
    file = with_ycck(encoded(Image.merge("CMYK", bands), "JPEG", quality=100, subsampling=0))
    close(decode(file, 3), PHOTO, 8)


def on_white(colour, alpha):
    return np.round(colour * (alpha / 255.0) + 255 * (1 - alpha / 255.0))


def test_transparent_pixels_lie_on_white():
    alpha = np.tile(np.linspace(0, 255, PHOTO.shape[1]).astype(np.uint8), (PHOTO.shape[0], 1))
    rgba, grey = np.dstack([PHOTO, alpha]), np.dstack([GREY, alpha])
    close(decode(encoded(rgba), 3), on_white(PHOTO, alpha[..., None]), 1)
    close(decode(encoded(grey), 1)[..., 0], on_white(GREY, alpha), 1)
    close(decode(encoded(rgba, "WEBP", lossless=True, exact=True), 3), on_white(PHOTO, alpha[..., None]), 1)


def test_palette_with_and_without_a_transparent_entry():
    palette = Image.fromarray(PHOTO).quantize(16)
    plain = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(decode(encoded(palette), 3), plain)
    hole = np.asarray(palette) == 5
    assert hole.any()
    assert not hole.all()
    expected = np.where(hole[..., None], 255, plain)
    np.testing.assert_array_equal(decode(encoded(palette, transparency=5), 3), expected)
    np.testing.assert_array_equal(decode(encoded(palette, "GIF", transparency=5), 3), expected)


def test_one_transparent_colour_of_rgb_and_of_grey():
    colour = tuple(PHOTO[0, 0].tolist())
    expected = np.where((colour == PHOTO).all(-1, keepdims=True), 255, PHOTO)
    np.testing.assert_array_equal(decode(encoded(PHOTO, transparency=colour), 3), expected)
    made = decode(encoded(GREY, transparency=int(GREY[0, 0])), 1)[..., 0]
    np.testing.assert_array_equal(made, np.where(GREY[0, 0] == GREY, 255, GREY))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(kind):
    np.testing.assert_array_equal(decode(encoded(RAMP.astype(np.uint16) * 257, kind), 1)[..., 0], RAMP)
    between = np.minimum(RAMP.astype(np.int64) * 257 + 128, 65535).astype(np.uint16)
    np.testing.assert_array_equal(decode(encoded(between, kind), 1)[..., 0], RAMP)


def test_one_bit():
    bits = GREY > 100
    np.testing.assert_array_equal(decode(encoded(bits), 1)[..., 0], bits * 255)
    np.testing.assert_array_equal(decode(encoded(bits), 3)[..., 2], bits * 255)


def profile(edit=lambda data: data):
    return edit(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


def swapped_primaries(data):
    """An sRGB profile under another name whose red and blue primaries are exchanged."""
    data = data.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    return data.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))


def test_a_profile_is_converted_to_srgb():
    made = decode(encoded(PHOTO, icc_profile=profile(swapped_primaries)), 3)
    close(made, PHOTO[..., ::-1], 3)
    assert np.abs(made.astype(int) - PHOTO).max() > 30


def test_srgb_itself_changes_nothing():
    np.testing.assert_array_equal(decode(encoded(PHOTO, icc_profile=profile()), 3), PHOTO)


@pytest.mark.parametrize("bad", [b"nonsense", profile()[:200], b"\0" * 500])
def test_a_damaged_profile_is_ignored(bad):
    np.testing.assert_array_equal(decode(encoded(PHOTO, icc_profile=bad), 3), PHOTO)


def test_a_profile_of_another_kind_of_image_is_ignored():
    np.testing.assert_array_equal(decode(encoded(GREY, icc_profile=profile(swapped_primaries)), 1)[..., 0], GREY)


def test_threads_share_a_profile():
    files = [encoded(crop("flower", k), icc_profile=profile(swapped_primaries)) for k in range(40)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda file: decode(file, 3), files))
    for a, file in zip(made, files, strict=True):
        np.testing.assert_array_equal(a, decode(file, 3))


def test_the_bytes_decide_not_the_name():
    # ImageNet's n02105855_2933.JPEG is a PNG; the decoder never sees a name.
    np.testing.assert_array_equal(decode(encoded(PHOTO, "PNG"), 3), PHOTO)


def broken(file, where):
    return file[:where] + bytes(255 - byte for byte in file[where : where + 40]) + file[where + 40 :]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello, this is text", "not an image file of JPEG"),
        (encoded(PHOTO, "JPEG")[:-200], "truncated"),
        (encoded(PHOTO, "PNG")[:-300], "truncated"),
        (broken(encoded(PHOTO, "PNG"), 300), "."),
        (encoded(PHOTO, "JPEG")[:30], "."),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image file"),
        (encoded(np.float32(GREY), "TIFF"), "TIFF with pixels of mode F, whose range is unknown"),
    ],
    ids=["empty", "text", "cut_jpeg", "cut_png", "damaged_png", "head_of_jpeg", "eps", "float"],
)
def test_what_cannot_be_shown_has_one_kind_of_error(data, reason):
    with pytest.raises(UnreadableImage, match=reason) as caught:
        decode(data, 3)
    assert str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 100)
    with pytest.raises(UnreadableImage, match="28x20 pixels are more than 100"):
        decode(encoded(PHOTO), 3)


def test_a_bomb_that_pillow_knows():
    file = bytearray(encoded(Image.new("1", (8, 8)), "BMP"))
    file[18:26] = np.array([30000, 30000], "<i4").tobytes()
    with pytest.raises(UnreadableImage, match="pixels"):
        decode(bytes(file), 3)
