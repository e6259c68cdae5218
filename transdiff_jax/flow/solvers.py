"""Solvers of the reverse process: one `lax.scan` each, from noise at t = 1 to data at t = 0.

All have one signature; the initial noise x is [b, tokens, channels] in float32, `velocity` is the (guided) velocity,
`noise` is asked for the standard normal noise of each interval by solvers of the SDE only. They evaluate the velocity
once in a scan's body, at times that are known beforehand (`Solver.times`), never at t = 0, where no training time is.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from transdiff_jax.flow.guidance import VelocityFn
from transdiff_jax.flow.path import sde_drift
from transdiff_jax.flow.timesteps import SolverGrid

Array = jax.Array
NoiseFn = Callable[[Array], Array]  # interval index -> N(0, I) noise like x


@dataclasses.dataclass(frozen=True)
class Solver:
    """A way to x(0), and when it asks for velocities."""

    solve: Callable[[VelocityFn, Array, SolverGrid, NoiseFn], Array]  # -> the sample at t = 0, shaped like the noise
    times: Callable[[SolverGrid], np.ndarray]  # of all velocity evaluations, in order


def euler_maruyama(velocity: VelocityFn, x: Array, grid: SolverGrid, noise: NoiseFn) -> Array:
    """The reverse SDE with g^2 = 2t, first order (the solver of the published scores).

    Noise is not added where noise_scale is 0; dt = next_time - time is negative.
    """

    def step(x: Array, interval: tuple[Array, SolverGrid]) -> tuple[Array, None]:
        index, (t, next_t, drift_scale, noise_scale) = interval
        dt = next_t - t
        drift = sde_drift(velocity(x, t), x, t)
        diffusion = jnp.sqrt(2 * t) * jnp.sqrt(jnp.abs(dt)) * noise(index)
        return x + drift_scale * drift * dt + noise_scale * diffusion, None

    return jax.lax.scan(step, x, (np.arange(len(grid.time)), grid))[0]


def euler(velocity: VelocityFn, x: Array, grid: SolverGrid, noise: NoiseFn) -> Array:
    """The probability-flow ODE dx = v dt, first order; scales and `noise` do not enter."""
    del noise

    def step(x: Array, interval: tuple[Array, Array]) -> tuple[Array, None]:
        t, next_t = interval
        return x + velocity(x, t) * (next_t - t), None

    return jax.lax.scan(step, x, (grid.time, grid.next_time))[0]


def heun(velocity: VelocityFn, x: Array, grid: SolverGrid, noise: NoiseFn) -> Array:
    """The ODE by Heun's method, second order: an Euler step, then the mean of the velocities at both of its ends.

    The last interval stays an Euler step, as in EDM (Karras et al. 2022, algorithm 1). The scan runs over evaluations,
    two an interval, so that its body holds the network once.
    """
    del noise

    def evaluate(state: tuple[Array, Array, Array], evaluation: tuple[Array, ...]) -> tuple[tuple, None]:
        x, start, slope = state
        t, dt, corrects = evaluation
        v = velocity(x, t)
        corrected = start + dt * (slope + v) / 2
        return (jnp.where(corrects, corrected, x + dt * v), jnp.where(corrects, start, x), v), None

    steps, corrects = len(grid.time), np.arange(2 * len(grid.time) - 1) % 2 == 1
    dt = np.repeat(grid.next_time - grid.time, 2)[: 2 * steps - 1]
    return jax.lax.scan(evaluate, (x, x, jnp.zeros_like(x)), (_heun_times(grid), dt, corrects))[0][0]


def dpmpp_2m(velocity: VelocityFn, x: Array, grid: SolverGrid, noise: NoiseFn) -> Array:
    """The ODE by DPM-Solver++(2M), second order with one evaluation an interval (Lu et al. 2022, algorithm 2).

    It steps along the predicted data x - t v, extrapolated through the previous prediction.
    """
    del noise

    def step(state: tuple[Array, Array], interval: tuple[Array, ...]) -> tuple[tuple, None]:
        x, previous = state
        t, keep, newest, older = interval
        data = x - t * velocity(x, t)
        return (keep * x + newest * data + older * previous, data), None

    return jax.lax.scan(step, (x, jnp.zeros_like(x)), (grid.time, *multistep_coefficients(grid)))[0][0]


def multistep_coefficients(grid: SolverGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Factors of x, of the newest data prediction and of the one before it, for each interval; float32 [steps].

    In the half log-signal-to-noise ratio lambda = log((1 - t) / t), which is infinite at both ends: the first two
    intervals and the last are of first order (no, or an infinitely far, previous prediction; an infinite step).
    """
    t, next_t = grid.time.astype(np.float64), grid.next_time.astype(np.float64)
    with np.errstate(divide="ignore"):
        ratio = np.append(np.log((1 - t) / t), np.inf)
    lengths = np.diff(ratio)
    extrapolation = np.zeros(len(t))
    extrapolation[2:-1] = lengths[2:-1] / lengths[1:-2] / 2
    keep = next_t / t
    factors = keep, (1 - keep) * (1 + extrapolation), -(1 - keep) * extrapolation
    return tuple(values.astype(np.float32) for values in factors)


def _starts(grid: SolverGrid) -> np.ndarray:
    return grid.time


def _heun_times(grid: SolverGrid) -> np.ndarray:
    return np.stack([grid.time, grid.next_time], axis=1).ravel()[:-1]


SOLVERS: dict[str, Solver] = {
    "euler_maruyama": Solver(euler_maruyama, _starts),
    "euler": Solver(euler, _starts),
    "heun": Solver(heun, _heun_times),
    "dpmpp_2m": Solver(dpmpp_2m, _starts),
}
