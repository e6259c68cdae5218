import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.noise import INDICES, SHAPE, STEPS, draws
from transdiff_jax import rng
from transdiff_jax.config import MeshConfig
from transdiff_jax.parallel.arrays import batch_sharding
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.sampling.noise import GivenNoise


def test_noise_of_a_sample_is_the_same_in_any_batch_and_order():
    initial, steps = jax.jit(draws)(5, INDICES)
    assert initial.shape == (8, *SHAPE)
    order = np.array([6, 2, 4])
    other_initial, other_steps = jax.jit(draws)(5, INDICES[order])
    np.testing.assert_array_equal(other_initial, initial[order])
    np.testing.assert_array_equal(other_steps, steps[:, :, order])
    one_initial, one_steps = jax.jit(draws)(5, INDICES[5:6])
    np.testing.assert_array_equal(one_initial[0], initial[5])
    np.testing.assert_array_equal(one_steps[:, :, 0], steps[:, :, 5])


def test_noise_of_a_sample_is_the_same_on_any_number_of_devices():
    alone = jax.jit(draws)(5, INDICES)
    mesh = make_mesh(MeshConfig())
    spread = jax.jit(draws)(5, jax.device_put(INDICES, batch_sharding(mesh)))
    assert len(spread[0].devices()) == 8
    jax.tree.map(np.testing.assert_array_equal, alone, spread)


def test_noise_is_that_of_the_streams():
    initial, steps = draws(5, INDICES)
    np.testing.assert_array_equal(initial[4], jax.random.normal(rng.key(5, rng.SAMPLE_INITIAL, 40), SHAPE))
    key = jax.random.fold_in(jax.random.fold_in(rng.key(5, rng.SAMPLE_STEP, 40), 2), 1)
    np.testing.assert_array_equal(steps[2, 1, 4], jax.random.normal(key, SHAPE))


def test_every_draw_is_another():
    initial, steps = draws(5, INDICES)
    other_initial, other_steps = draws(6, INDICES)
    first = np.concatenate([np.ravel(x[..., 0, 0]) for x in (initial, steps, other_initial, other_steps)])
    assert len(np.unique(first)) == len(first) == 2 * (8 + 4 * STEPS * 8)


def test_given_noise_hands_out_what_it_was_given():
    initial, steps = draws(5, INDICES)
    noise = GivenNoise(initial, steps)
    np.testing.assert_array_equal(noise.initial(SHAPE), initial)
    np.testing.assert_array_equal(noise.step(2, SHAPE, jnp.int32(1)), steps[2, 1])
    with pytest.raises(ValueError, match=r"initial noise must be \[b, 9, 4\], got \(8, 16, 4\)"):
        noise.initial((9, 4))
    with pytest.raises(
        ValueError, match=r"step noise must be \[num_images, steps, 8, 16, 8\] for image 0, got \(4, 3, 8, 16, 4\)"
    ):
        noise.step(0, (16, 8), jnp.int32(0))
