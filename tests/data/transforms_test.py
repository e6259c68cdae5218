import numpy as np
import pytest

from transdiff_jax.config import DataConfig
from transdiff_jax.data.transforms import random_square, to_unit_range, transform
from transdiff_jax.images import to_uint8

IMAGE = np.array([[[0], [51]], [[204], [255]]], np.uint8)


def test_unit_range_literal():
    made = to_unit_range(IMAGE)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made[..., 0], [[-1, -0.6], [0.6, 1]], atol=1e-6)


def test_every_level_comes_back():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(to_unit_range(levels)), levels)


def test_no_flip_unless_asked_for():
    generator = np.random.default_rng(0)
    for _ in range(20):
        np.testing.assert_array_equal(transform(IMAGE, DataConfig(), generator), to_unit_range(IMAGE))


def test_flip_mirrors_half_of_the_images_left_to_right():
    generator, config = np.random.default_rng(0), DataConfig(flip=True)
    plain, mirrored = to_unit_range(IMAGE), to_unit_range(IMAGE)[:, ::-1]
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
