import numpy as np

from transdiff_jax.config import DataConfig
from transdiff_jax.data.transforms import to_unit_range, transform
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
