import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transdiff_jax.config import SamplingConfig
from transdiff_jax.flow.timesteps import draw_training_timesteps, solver_grid


def test_training_timesteps_are_truncated_logit_normal_times():
    key = jax.random.key(0)
    timesteps = draw_training_timesteps(key, (50, 40))
    assert timesteps.dtype == jnp.int32
    normal = np.asarray(jax.random.normal(key, (50, 40)))
    expected = np.floor(1000 * np.asarray(jax.nn.sigmoid(normal)))
    np.testing.assert_array_equal(timesteps, expected)
    assert len(np.unique(timesteps)) > 500


def test_training_timesteps_distribution():
    timesteps = np.asarray(draw_training_timesteps(jax.random.key(1), (200_000,)))
    assert timesteps.min() >= 0 and timesteps.max() <= 999
    # sigmoid(1) = 0.73106, sigmoid(-1) = 0.26894: one standard deviation on either side.
    assert abs(np.mean(timesteps < 500) - 0.5) < 0.005
    assert abs(np.mean(timesteps <= 731) - 0.8413) < 0.005
    assert abs(np.mean(timesteps < 269) - 0.1587) < 0.005


def test_extreme_draws_stay_in_range(monkeypatch):
    monkeypatch.setattr(jax.random, "normal", lambda key, shape: jnp.array([-200.0, 0.0, 200.0]))
    assert draw_training_timesteps(jax.random.key(0), (3,)).tolist() == [0, 500, 999]


def test_solver_grid_literal():
    grid = solver_grid(SamplingConfig(steps=4, last_time=0.1, drift_scale=0.87, noise_scale=0.91))
    np.testing.assert_allclose(grid.time, [1.0, 0.7, 0.4, 0.1], rtol=1e-6)
    np.testing.assert_allclose(grid.next_time, [0.7, 0.4, 0.1, 0.0], rtol=1e-6)
    np.testing.assert_allclose(grid.drift_scale, [0.87, 0.87, 0.87, 1.0], rtol=1e-6)
    np.testing.assert_allclose(grid.noise_scale, [0.91, 0.91, 0.91, 0.0], rtol=1e-6)


@pytest.mark.parametrize("steps", [2, 3, 100])
def test_published_grid(steps):
    grid = solver_grid(SamplingConfig(steps=steps))
    np.testing.assert_allclose(grid.time, np.linspace(1, 0.04, steps), rtol=1e-6)
    np.testing.assert_allclose(grid.time[1:], grid.next_time[:-1])
    assert (grid.time[0], grid.next_time[-1], grid.noise_scale[-1]) == (1, 0, 0)


def test_one_step_goes_from_noise_to_data():
    grid = solver_grid(SamplingConfig(steps=1, drift_scale=0.5, noise_scale=0.5))
    assert [values.tolist() for values in grid] == [[1.0], [0.0], [1.0], [0.0]]
