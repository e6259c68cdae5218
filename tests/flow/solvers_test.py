import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.flow.path_test import gaussian_velocity
from transdiff_jax.config import SamplingConfig
from transdiff_jax.flow.guidance import guide
from transdiff_jax.flow.solvers import SOLVERS, euler, euler_maruyama
from transdiff_jax.flow.timesteps import solver_grid

SCALE = 0.5  # of the Gaussian data


def oracle(x, t):
    return gaussian_velocity(x, t, SCALE)


def output_variance(solver, steps, **settings):
    """The exact variance of what a solver makes of N(0, 1): with the linear oracle the output is a linear function of
    the initial noise and of each step's, so one row for each of them, 1 there and 0 elsewhere, measures it."""
    grid = solver_grid(SamplingConfig(steps=steps, **settings))
    initial = jnp.zeros(steps + 1).at[0].set(1.0)

    def noise(index):
        return jnp.zeros(steps + 1).at[index + 1].set(1.0)

    return float(jnp.sum(jax.jit(lambda x: solver(oracle, x, grid, noise))(initial) ** 2))


def test_solvers_by_name():
    assert {"euler_maruyama": euler_maruyama, "euler": euler} == SOLVERS


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_gaussian_variance_becomes_exact_as_steps_grow(solver):
    errors = [abs(output_variance(solver, n, last_time=1 / n) - SCALE**2) for n in (10, 40, 160, 640)]
    assert all(fine < 0.5 * coarse for coarse, fine in itertools.pairwise(errors))
    assert errors[-1] < 0.003


def test_published_last_interval_leaves_a_small_bias():
    # From t = 0.04 one noiseless step: the variance there, scaled by 1 - 0.04 (1.96 v / x + 1).
    variance = 0.96**2 * SCALE**2 + 0.04**2
    factor = 1 - 0.04 * (1.96 * float(gaussian_velocity(1.0, 0.04, SCALE)) + 1)
    assert abs(output_variance(euler_maruyama, 2000) - variance * factor**2) < 5e-4


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_gaussian_samples_have_that_variance(solver):
    grid, key = solver_grid(SamplingConfig(steps=50)), jax.random.key(0)

    def noise(index):
        return jax.random.normal(jax.random.fold_in(key, index), (100_000,))

    samples = jax.jit(lambda x: solver(oracle, x, grid, noise))(noise(50))
    assert abs(samples.mean()) < 0.01
    # Four standard deviations of a variance estimate.
    assert abs(samples.var() / output_variance(solver, 50) - 1) < 4 * (2 / 100_000) ** 0.5


def test_euler_is_of_first_order():
    def error(n):
        # Exactly, a Gaussian shrinks by the ratio of its standard deviations, SCALE to 1.
        return abs(output_variance(euler, n, last_time=1 / n) ** 0.5 - SCALE)

    assert error(40) / error(80) == pytest.approx(2, abs=0.1)


def test_euler_literal():
    grid = solver_grid(SamplingConfig(solver="euler", steps=3, last_time=0.2, drift_scale=0.5, noise_scale=0.5))
    x = jnp.array([1.0, -2.0])
    for t, next_t in [(1.0, 0.6), (0.6, 0.2), (0.2, 0.0)]:
        x = x + (jnp.sin(x) + t) * (next_t - t)
    made = euler(lambda x, t: jnp.sin(x) + t, jnp.array([1.0, -2.0]), grid, lambda index: jnp.full(2, jnp.nan))
    np.testing.assert_allclose(made, x, rtol=1e-6)


def test_guided_euler_maruyama_is_the_release_step_by_step():
    steps, last_time, weight, scale_0, scale_1 = 5, 0.1, 1.7, 0.87, 0.91
    generator = np.random.default_rng(0)
    initial = generator.standard_normal((3, 2, 4))
    noise = generator.standard_normal((steps, 3, 2, 4))
    noise[-1] *= 1000  # of the last interval: must not enter

    def conditional(x, t):
        return np.sin(x) + t

    def unconditional(x, t):
        return np.cos(2 * x) - t**2

    def drift(velocity, x, t):
        score = -((1 - t) * velocity + x) / t
        return velocity - 0.5 * (2 * t) * score

    x, times = initial, np.append(np.linspace(1, last_time, steps), 0)
    for k in range(steps):
        t, dt = times[k], times[k + 1] - times[k]
        u, c = drift(unconditional(x, t), x, t), drift(conditional(x, t), x, t)
        guided = u + weight * (c - u)
        if k < steps - 1:
            x = x + scale_0 * guided * dt + scale_1 * np.sqrt(2 * t) * noise[k] * np.sqrt(abs(dt))
        else:
            x = x + guided * dt

    def velocity(x, t):
        return jnp.stack([jnp.sin(x) + t, jnp.cos(2 * x) - t**2], axis=1).reshape(6, 2, 4)

    grid = solver_grid(SamplingConfig(steps=steps, last_time=last_time, drift_scale=scale_0, noise_scale=scale_1))
    draws = jnp.asarray(noise, jnp.float32)
    made = euler_maruyama(guide(velocity, weight), jnp.asarray(initial, jnp.float32), grid, lambda k: draws[k])
    np.testing.assert_allclose(made, x, rtol=1e-4, atol=1e-5)


def test_network_is_called_once_an_interval_and_at_its_start():
    seen = []

    def velocity(x, t):
        jax.debug.callback(lambda t: seen.append(round(float(t), 6)), t, ordered=True)
        return x

    for solver in SOLVERS.values():
        seen.clear()
        solver(velocity, jnp.ones(2), solver_grid(SamplingConfig(steps=4, last_time=0.1)), lambda k: jnp.zeros(2))
        jax.effects_barrier()
        assert seen == [1.0, 0.7, 0.4, 0.1]
