import itertools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.velocities import gaussian_velocity
from transdiff_jax.config import SamplingConfig
from transdiff_jax.flow.guidance import guide
from transdiff_jax.flow.solvers import SOLVERS, dpmpp_2m, dpmpp_2m_states, euler, euler_maruyama, heun
from transdiff_jax.flow.timesteps import SolverGrid, grid_of_times, solver_grid

SCALE = 0.5  # of the Gaussian data
ODE_SOLVERS = ("euler", "heun", "dpmpp_2m")


def oracle(x, t):
    return gaussian_velocity(x, t, SCALE)


def output_variance(solver, steps, **settings):
    """The exact variance of a solver's output for N(0, 1) noise.

    With the linear oracle the output is a linear function of the initial noise and of each step's noise. One row for
    each of these, with 1 there and 0 elsewhere, measures its coefficient.
    """
    grid = solver_grid(SamplingConfig(steps=steps, **settings))
    initial = jnp.zeros(steps + 1).at[0].set(1.0)

    def noise(index):
        return jnp.zeros(steps + 1).at[index + 1].set(1.0)

    return float(jnp.sum(jax.jit(lambda x: solver(oracle, x, grid, noise))(initial) ** 2))


def test_solvers_by_name():
    functions = {"euler_maruyama": euler_maruyama, "euler": euler, "heun": heun, "dpmpp_2m": dpmpp_2m}
    functions["flow_map"] = euler
    assert {name: solver.solve for name, solver in SOLVERS.items()} == functions
    # The configuration's choices are these.
    assert typing.get_args(typing.get_type_hints(SamplingConfig)["solver"]) == tuple(SOLVERS)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_gaussian_variance_becomes_exact_as_steps_grow(solver):
    coarse, fine = (abs(output_variance(solver.solve, n, last_time=1 / n) - SCALE**2) for n in (10, 160))
    assert fine < min(coarse / 8, 0.005)


def test_states_of_a_path_are_those_of_shorter_solvers():
    grid = grid_of_times(np.array([1.0, 0.7, 0.4, 0.2, 0.0]))
    x = jnp.array([0.3, -1.2])
    states = dpmpp_2m_states(oracle, x, grid)
    assert states.shape == (5, 2)
    np.testing.assert_array_equal(states[0], x)
    np.testing.assert_allclose(states[-1], dpmpp_2m(oracle, x, grid, jnp.zeros_like), rtol=1e-6)
    # The interval before the last is that of a solver which stops there.
    first = x + oracle(x, 1.0) * (0.7 - 1.0)
    np.testing.assert_allclose(states[1], first, rtol=1e-5)


def test_a_flow_map_jumps_in_equal_steps_from_noise_to_data():
    grid = solver_grid(SamplingConfig(solver="flow_map", steps=4))
    np.testing.assert_allclose(grid.time, [1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(grid.next_time, [0.75, 0.5, 0.25, 0])


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

    samples = jax.jit(lambda x: solver.solve(oracle, x, grid, noise))(noise(50))
    assert abs(samples.mean()) < 0.01
    # Four standard deviations of a variance estimate.
    assert abs(samples.var() / output_variance(solver.solve, 50) - 1) < 4 * (2 / 100_000) ** 0.5


def deterministic_error(solver, n, first, last):
    """The error of one path from time `first` to `last` in n intervals.

    The exact paths of a Gaussian scale with its standard deviation. In float64, so that rounding does not hide the
    order.
    """

    def deviation(t):
        return np.sqrt(((1 - t) * SCALE) ** 2 + t**2)

    with jax.enable_x64(True):
        times = np.linspace(first, last, n + 1)
        grid = SolverGrid(times[:-1], times[1:], np.ones(n), np.ones(n))
        made = jax.jit(lambda x: SOLVERS[solver].solve(oracle, x, grid, jnp.zeros_like))(jnp.ones(1))
        return abs(float(made[0]) - deviation(last) / deviation(first))


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_order_of_convergence(solver, order):
    errors = [deterministic_error(solver, n, 0.8, 0.2) for n in (50, 100, 200, 400)]
    orders = [np.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert orders == pytest.approx([order] * 3, abs=0.1)


def test_euler_maruyama_is_of_first_order():
    # The weak order: that of the distribution it makes, which here is a Gaussian of some variance.
    errors = [abs(output_variance(euler_maruyama, n, last_time=1 / n) - SCALE**2) for n in (40, 80, 160)]
    orders = [np.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert orders == pytest.approx([1, 1], abs=0.15)


def test_order_from_noise_to_data():
    # Half log-SNR is infinite at both ends of the whole path, and near them the multistep solver is of first order.
    errors = {solver: [deterministic_error(solver, n, 1.0, 0.0) for n in (40, 80, 160, 320)] for solver in ODE_SOLVERS}
    for solver, (low, high) in {"euler": (0.95, 1.05), "heun": (1.95, 2.05), "dpmpp_2m": (1.55, 2.05)}.items():
        orders = [np.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors[solver])]
        assert all(low < order < high for order in orders), (solver, orders)
    # At the same number of evaluations.
    assert max(errors["dpmpp_2m"][1], errors["heun"][0]) < errors["euler"][1] / 8


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
    noise[-1] *= 1000  # the last interval's noise must not enter

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


def test_heun_literal():
    def velocity(x, t):
        return np.sin(x) + t

    x = 1.0
    for t, next_t in [(1.0, 0.6), (0.6, 0.2)]:
        first = velocity(x, t)
        second = velocity(x + (next_t - t) * first, next_t)
        x = x + (next_t - t) * (first + second) / 2
    x = x - 0.2 * velocity(x, 0.2)
    grid = solver_grid(SamplingConfig(steps=3, last_time=0.2))
    made = heun(lambda x, t: jnp.sin(x) + t, jnp.ones(1), grid, lambda index: jnp.full(1, jnp.nan))
    np.testing.assert_allclose(made, [x], rtol=1e-6)


def test_dpmpp_2m_literal():
    """The published update, with the step's ratio r and length h in half log-SNR (Lu et al. 2022, algorithm 2)."""

    def data(x, t):
        return x - t * (np.sin(x) + t)

    def ratio(t):
        return np.log((1 - t) / t)

    x, times = 1.0, [1.0, 0.7, 0.4, 0.1]
    predictions = [data(x, 1.0)]
    x = 0.7 * x + 0.3 * predictions[0]  # from pure noise: first order
    predictions.append(data(x, 0.7))
    x = 0.4 / 0.7 * x + (1 - 0.4 / 0.7) * predictions[1]
    predictions.append(data(x, 0.4))
    h, r = ratio(0.1) - ratio(0.4), (ratio(0.4) - ratio(0.7)) / (ratio(0.1) - ratio(0.4))
    extrapolated = (1 + 1 / (2 * r)) * predictions[2] - 1 / (2 * r) * predictions[1]
    x = 0.1 / 0.4 * x - 0.9 * (np.exp(-h) - 1) * extrapolated
    x = data(x, 0.1)  # the last step removes all noise
    grid = solver_grid(SamplingConfig(steps=4, last_time=times[-1]))
    made = dpmpp_2m(lambda x, t: jnp.sin(x) + t, jnp.ones(1), grid, lambda index: jnp.full(1, jnp.nan))
    np.testing.assert_allclose(made, [x], rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_of_second_order_are_finite(steps):
    grid = solver_grid(SamplingConfig(steps=steps))
    for solver in (heun, dpmpp_2m):
        assert np.isfinite(solver(oracle, jnp.ones(1), grid, lambda index: jnp.zeros(1))).all()


@pytest.mark.parametrize(
    ("solver", "times"),
    [
        ("euler_maruyama", [1.0, 0.7, 0.4, 0.1]),
        ("euler", [1.0, 0.7, 0.4, 0.1]),
        ("heun", [1.0, 0.7, 0.7, 0.4, 0.4, 0.1, 0.1]),
        ("dpmpp_2m", [1.0, 0.7, 0.4, 0.1]),
    ],
)
def test_network_is_called_when_the_solver_says(solver, times):
    seen, grid = [], solver_grid(SamplingConfig(steps=4, last_time=0.1))

    def velocity(x, t):
        jax.debug.callback(lambda t: seen.append(round(float(t), 6)), t, ordered=True)
        return x

    SOLVERS[solver].solve(velocity, jnp.ones(2), grid, lambda k: jnp.zeros(2))
    jax.effects_barrier()
    assert seen == times
    np.testing.assert_allclose(SOLVERS[solver].times(grid), times, rtol=1e-6)
