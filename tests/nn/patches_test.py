import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import literal
from transdiff_jax.nn.patches import patchify, unpatchify


def test_patchify_literal():
    # Two channels (x, 10 x) on a 2x4 grid: two patches side by side.
    x = jnp.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    grid = jnp.stack([x, 10 * x], axis=-1)
    made = patchify(grid, 2)
    assert made.shape == (1, 2, 8)
    assert made[0].tolist() == [[1, 2, 5, 6, 10, 20, 50, 60], [3, 4, 7, 8, 30, 40, 70, 80]]


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_patchify_against_loops(patch):
    grid = jnp.arange(6 * 12 * 2).reshape(6, 12, 2)
    made = patchify(grid, patch)
    assert made.shape == (6 // patch, 12 // patch, 2 * patch**2)
    np.testing.assert_array_equal(made.reshape(-1, 2 * patch**2), literal.patches(np.asarray(grid), patch))


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_inverse_with_any_leading_axes(lead):
    grid = jax.random.normal(jax.random.key(0), (*lead, 4, 6, 3))
    made = patchify(grid, 2)
    assert made.shape == (*lead, 2, 3, 12)
    np.testing.assert_array_equal(unpatchify(made, 2), grid)
    if lead:
        np.testing.assert_array_equal(made[-1], patchify(grid[-1], 2))


@pytest.mark.parametrize("shape", [(3, 4, 1), (4, 3, 1)])
def test_patches_must_divide_the_grid(shape):
    with pytest.raises(ValueError, match=r"patches of 2x2 do not divide a grid of shape \("):
        patchify(jnp.zeros(shape), 2)


def test_channels_must_be_patches():
    with pytest.raises(ValueError, match=r"6 channels of a grid of shape \(1, 1, 6\) are not patches of 2x2"):
        unpatchify(jnp.zeros((1, 1, 6)), 2)
