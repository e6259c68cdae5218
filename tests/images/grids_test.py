import numpy as np
import pytest
from PIL import Image

from transdiff_jax.images.grids import grid, name_rows
from transdiff_jax.images.png import load_png, save_png
from transdiff_jax.images.uint8 import to_uint8


def test_to_uint8_rounds_and_clips():
    images = np.array([[-1.0, 1.0, 0.0], [-3.0, 1.01, np.inf]], np.float32)
    pixels = np.asarray(to_uint8(images))
    assert pixels.dtype == np.uint8
    assert pixels.tolist() == [[0, 255, 128], [0, 255, 255]]


@pytest.mark.parametrize(("offset", "expected"), [(-0.49, 0), (0.0, 0), (0.49, 0), (0.51, 1)])
def test_to_uint8_goes_to_the_nearest_level(offset, expected):
    levels = np.arange(1, 255)
    images = (2 * (levels + offset) / 255 - 1).astype(np.float32)
    np.testing.assert_array_equal(to_uint8(images), levels + expected)


def test_grid_literal():
    images = np.array([[[1, 2]], [[3, 4]], [[5, 6]], [[7, 8]]], np.uint8)[..., None]
    w = 255
    expected = [
        [w, w, w, w, w, w, w],
        [w, 1, 2, w, 3, 4, w],
        [w, w, w, w, w, w, w],
        [w, 5, 6, w, 7, 8, w],
        [w, w, w, w, w, w, w],
    ]
    picture = grid(images, 2, gap=1)
    assert picture.dtype == np.uint8
    assert picture[..., 0].tolist() == expected


def test_grid_scales_pixels_not_gaps():
    images = np.array([[[[1, 9]]], [[[2, 8]]]], np.uint8)  # two images, each of one pixel with two channels
    w = 255
    expected = [[w, w, w, w, w, w, w], [w, 1, 1, w, 2, 2, w], [w, 1, 1, w, 2, 2, w], [w, w, w, w, w, w, w]]
    picture = grid(images, 1, scale=2, gap=1)
    assert picture[..., 0].tolist() == expected
    assert picture[1, :, 1].tolist() == [w, 9, 9, w, 8, 8, w]
    assert grid(images, 2, gap=0)[..., 0].tolist() == [[1], [2]]
    assert grid(images, 1).shape == (5, 8, 2)


def test_grid_that_is_not_full():
    with pytest.raises(ValueError, match=r"3 images of shape \(1, 2, 1\) do not fill 2 rows"):
        grid(np.zeros((3, 1, 2, 1), np.uint8), 2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("row_height", [34, 400])
def test_rows_are_named_on_their_left(channels, row_height):
    picture = np.full((3 * row_height, 5, channels), 77, np.uint8)
    named = name_rows(picture, ["1", "", "207"])
    width = named.shape[1] - 5
    assert named.shape == (3 * row_height, width + 5, channels)
    np.testing.assert_array_equal(named[:, width:], picture)
    ink = [255 - named[row * row_height : (row + 1) * row_height, :width].astype(int) for row in range(3)]
    assert ink[0].max() > 100
    assert ink[1].max() == 0
    assert ink[2].sum() > ink[0].sum()
    rows = np.flatnonzero(ink[2].any(axis=(1, 2)))
    assert abs(rows.mean() - row_height / 2) < row_height / 8, "in the middle of its row"
    assert all(part[:, :3].max() == part[:, -3:].max() == 0 for part in ink), "nothing is cut off"


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_lossless(tmp_path, channels):
    image = np.arange(2 * 5 * channels, dtype=np.uint8).reshape(2, 5, channels) * 8
    path = tmp_path / "a.png"
    save_png(path, image)
    np.testing.assert_array_equal(load_png(path, channels), image)
    with Image.open(path) as stored:
        assert (stored.format, stored.mode, stored.size) == ("PNG", {1: "L", 3: "RGB"}[channels], (5, 2))
    assert list(tmp_path.iterdir()) == [path]


def test_failed_png_leaves_nothing(tmp_path):
    with pytest.raises((TypeError, ValueError, OSError)):
        save_png(tmp_path / "a.png", np.zeros((2, 2, 3), np.float64))
    assert list(tmp_path.iterdir()) == []
