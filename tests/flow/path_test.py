import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.velocities import gaussian_velocity
from transdiff_jax.flow.path import interpolate, score_from_velocity, sde_drift, velocity_target

TIMES = [0.04, 0.3, 0.7, 1.0]


def test_path_runs_straight_from_data_to_noise():
    x, noise = jnp.array([1.0, -2.0]), jnp.array([3.0, 5.0])
    np.testing.assert_array_equal(interpolate(x, noise, 0.0), x)
    np.testing.assert_array_equal(interpolate(x, noise, 1.0), noise)
    np.testing.assert_allclose(interpolate(x, noise, 0.25), [1.5, -0.25])
    np.testing.assert_array_equal(velocity_target(x, noise), [2.0, 7.0])


@pytest.mark.parametrize("t", TIMES)
def test_target_is_the_derivative_of_the_path(t):
    x, noise = jnp.array([1.0, -2.0]), jnp.array([3.0, 5.0])
    _, derivative = jax.jvp(lambda t: interpolate(x, noise, t), (t,), (1.0,))
    np.testing.assert_allclose(velocity_target(x, noise), derivative, rtol=1e-6)


@pytest.mark.parametrize("t", TIMES)
def test_gaussian_velocity_is_the_regression_of_the_target(t):
    generator = np.random.default_rng(0)
    data, noise = (jnp.asarray(scale * generator.standard_normal(400_000)) for scale in (0.5, 1))
    points, targets = interpolate(data, noise, t), velocity_target(data, noise)
    slope = (points @ targets) / (points @ points)
    assert abs(slope - gaussian_velocity(1.0, t, 0.5)) < 0.02


@pytest.mark.parametrize("t", TIMES)
def test_score_of_a_gaussian(t):
    x, variance = jnp.linspace(-2, 2, 5), (1 - t) ** 2 * 0.25 + t**2
    score = score_from_velocity(gaussian_velocity(x, t, 0.5), x, t)
    np.testing.assert_allclose(score, -x / variance, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("t", TIMES)
def test_drift_is_velocity_less_half_g_squared_score(t):
    x, velocity = jnp.array([0.3, -1.1, 2.0]), jnp.array([1.0, 0.5, -0.7])
    expected = velocity - 0.5 * (2 * t) * score_from_velocity(velocity, x, t)
    np.testing.assert_allclose(sde_drift(velocity, x, t), expected, rtol=1e-5)


def test_drift_is_finite_at_time_zero():
    np.testing.assert_array_equal(sde_drift(jnp.array(1.5), jnp.array(2.0), 0.0), 5.0)
