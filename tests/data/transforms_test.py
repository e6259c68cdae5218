import numpy as np
import pytest
from PIL import Image

from tests.support.photos import photographs
from transdiff_jax.config import DataConfig
from transdiff_jax.data.transforms import center_square, random_square, transform

IMAGE = np.array([[[0], [51]], [[204], [255]]], np.uint8)


def test_no_flip_unless_asked_for():
    generator = np.random.default_rng(0)
    for _ in range(20):
        np.testing.assert_array_equal(transform(IMAGE, DataConfig(), generator), IMAGE)


def test_flip_mirrors_half_of_the_images_left_to_right():
    generator, config = np.random.default_rng(0), DataConfig(flip=True)
    plain, mirrored = IMAGE, IMAGE[:, ::-1]
    flips = 0
    for _ in range(400):
        made = transform(IMAGE, config, generator)
        flips += (made == mirrored).all()
        assert (made == mirrored).all() or (made == plain).all()
    assert abs(flips - 200) < 40


def test_generator_decides():
    def run(seed):
        generator = np.random.default_rng(seed)
        return [transform(IMAGE, DataConfig(flip=True), generator) for _ in range(16)]

    np.testing.assert_array_equal(run(0), run(0))
    assert not np.array_equal(run(0), run(1))


@pytest.mark.parametrize("shape", [(20, 8, 3), (8, 20, 3), (8, 8, 1), (11, 30, 1)])
def test_a_random_square_of_the_short_side_keeps_its_pixels(shape):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    side, seen = min(shape[:2]), set()
    for seed in range(20):
        square = random_square(image, side, np.random.default_rng(seed))
        places = [
            (top, left)
            for top in range(shape[0] - side + 1)
            for left in range(shape[1] - side + 1)
            if np.array_equal(square, image[top : top + side, left : left + side])
        ]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) > 5 or shape[0] == shape[1]


def test_a_random_square_is_resized():
    ramp = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[:, None, None], 24, axis=1)
    small = random_square(ramp, 12, np.random.default_rng(0))
    assert small.shape == (12, 12, 1)
    np.testing.assert_allclose(small[3:-3, 0, 0], np.arange(5, 240, 20)[3:-3], atol=1)


def adm_crop(height, width, size):
    """The sizes after each halving and after the last resize, and the place of the square."""
    halvings = []
    while min(height, width) >= 2 * size:
        height, width = height // 2, width // 2
        halvings.append((height, width))
    scale = size / min(height, width)
    height, width = round(height * scale), round(width * scale)
    return halvings, (height, width), ((height - size) // 2, (width - size) // 2)


HAND_WORKED = {
    (427, 640, 64): ([(213, 320), (106, 160)], (64, 97), (0, 16)),  # 160 * 64 / 106 = 96.6
    (427, 640, 256): ([], (256, 384), (0, 64)),  # 640 * 256 / 427 = 383.7
    (400, 101, 50): ([(200, 50)], (200, 50), (75, 0)),
    (100, 99, 50): ([], (51, 50), (0, 0)),  # 100 * 50 / 99 = 50.5: up
    (40, 41, 60): ([], (60, 62), (0, 1)),  # 61.5 is rounded to even
    (30, 40, 45): ([], (45, 60), (0, 7)),
}


@pytest.mark.parametrize(("case", "sizes"), HAND_WORKED.items(), ids=str)
def test_the_center_square_is_that_of_adm(case, sizes):
    height, width, size = case
    assert adm_crop(*case) == sizes
    image = photographs()["china"][:height, :width]
    halvings, resized, (top, left) = sizes
    picture = Image.fromarray(image)
    for h, w in halvings:
        picture = picture.resize((w, h), resample=Image.Resampling.BOX)
    picture = picture.resize(resized[::-1], resample=Image.Resampling.BICUBIC)
    expected = np.array(picture)[top : top + size, left : left + size]
    np.testing.assert_array_equal(center_square(image, size), expected)
    grey = center_square(image[..., :1], size)
    np.testing.assert_array_equal(grey[..., 0], expected[..., 0])


@pytest.mark.parametrize("crop", ["random", "center"])
def test_a_crop_has_the_asked_size(crop):
    made = transform(photographs()["flower"], DataConfig(crop=crop, image_size=33), np.random.default_rng(0))
    assert (made.shape, made.dtype) == ((33, 33, 3), np.uint8)
