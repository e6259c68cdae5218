import numpy as np
import pytest
from jaxtyping import TypeCheckError

from tests.support.paths import GOLDEN
from transdiff_jax.evaluation.inception.preprocess import SIDE, preprocess, resize

GOLDEN = GOLDEN / "inception_a.npz"


def literal(image, row, column):
    """One output pixel by definition, in float64."""
    height, width = image.shape[:2]
    y, x = row * height / SIDE, column * width / SIDE
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = image[top, left] + (image[top, right] - image[top, left]) * (x - left)
    lower = image[bottom, left] + (image[bottom, right] - image[bottom, left]) * (x - left)
    return upper + (lower - upper) * (y - top)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (37, 61), (299, 299), (512, 512), (1, 700)])
def test_every_size_follows_the_definition(height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    resized = np.asarray(resize(image[None].astype(np.uint8)))[0]
    assert resized.shape == (SIDE, SIDE, 3)
    for row in (0, 1, 7, 150, 297, 298):
        for column in (0, 2, 149, 298):
            expected = literal(image.astype(np.float64), row, column)
            np.testing.assert_allclose(resized[row, column], expected, atol=2e-2 * max(height, width) / SIDE)


def test_an_image_of_the_networks_size_is_left_alone():
    image = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3)).astype(np.uint8)
    np.testing.assert_array_equal(resize(image), image)


@pytest.mark.parametrize("size", [32, 256])
def test_it_is_torch_fidelitys_to_the_last_bit(size):
    with np.load(GOLDEN) as file:
        images = file[f"size{size}/input/image_uint8"].transpose(0, 2, 3, 1)
        corner = file[f"size{size}/output/resized_corner"].transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(resize(images)[:, :40, :40], corner)


def test_pixels_become_numbers_around_zero():
    image = np.broadcast_to(np.array([0, 128, 255], np.uint8), (1, 16, 16, 3))
    np.testing.assert_array_equal(preprocess(image)[0, 5, 7], np.float32([-1, 0, 127 / 128]))


def test_grey_images_repeat_their_channel():
    grey = np.random.default_rng(0).integers(0, 256, (2, 9, 9, 1)).astype(np.uint8)
    np.testing.assert_array_equal(preprocess(grey), preprocess(grey.repeat(3, axis=-1)))


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="1 or 3"):
        preprocess(np.zeros((2, 9, 9, 4), np.uint8))
    # The tests check annotated shapes before the function runs.
    with pytest.raises((ValueError, TypeCheckError)):
        preprocess(np.zeros((9, 9, 3), np.uint8))
