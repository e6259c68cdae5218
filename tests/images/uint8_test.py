import jax
import numpy as np
import pytest

from transdiff_jax.images.uint8 import to_uint8, to_unit_range

LEVELS = np.arange(256, dtype=np.uint8)
DIVIDED = LEVELS.astype(np.float32) / np.float32(127.5) - 1


def test_unit_range_literal():
    made = to_unit_range(np.array([0, 51, 204, 255], np.uint8))
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, [-1, -0.6, 0.6, 1], atol=1e-6)


@pytest.mark.parametrize("scale", [1, 1.7])
def test_a_compiled_program_gives_the_bits_of_a_division(scale):
    """Also where what follows could fuse with it."""
    np.testing.assert_array_equal(to_unit_range(LEVELS), DIVIDED)
    made = jax.jit(lambda levels: to_unit_range(levels) * scale)(LEVELS)
    np.testing.assert_array_equal(made, jax.jit(lambda images: images * scale)(DIVIDED))


def test_every_level_comes_back():
    np.testing.assert_array_equal(to_uint8(to_unit_range(LEVELS)), LEVELS)
