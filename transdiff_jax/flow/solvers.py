"""Solvers of the reverse process: one `lax.scan` each, from noise at t = 1 to data at t = 0.

All have one signature. x is the initial noise in float32 and `velocity` the (guided) velocity; only solvers of the SDE
call `noise`, once for each interval. Each evaluates the velocity once in the body of its scan, at times that are known
beforehand (`Solver.times`), and never at t = 0, which training does not cover.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from transdiff_jax.flow.guidance import Latents, VelocityFn
from transdiff_jax.flow.path import sde_drift
from transdiff_jax.flow.timesteps import SolverGrid

NoiseFn = Callable[[Int[Array, ""]], Latents]  # interval index -> N(0, I) noise like x
State = TypeVar("State")


@dataclasses.dataclass(frozen=True)
class Solver:
    """A way to x(0), and the times at which it evaluates the velocity."""

    solve: Callable[[VelocityFn, Latents, SolverGrid, NoiseFn], Latents]  # -> the sample at t = 0
    times: Callable[[SolverGrid], Float[np.ndarray, " evaluations"]]  # in order


def _scan(step: Callable[[State, tuple[Array, ...]], tuple[State, None]], state: State, *inputs: np.ndarray) -> State:
    """The last state; `step` takes the state and one entry of each of `inputs`."""
    return jax.lax.scan(step, state, tuple(jnp.asarray(values) for values in inputs))[0]


def euler_maruyama(velocity: VelocityFn, x: Latents, grid: SolverGrid, noise: NoiseFn) -> Latents:
    """The reverse SDE with g^2 = 2t, first order (the solver of the published scores).

    A noise_scale of 0 adds no noise; dt = next_time - time is negative.
    """

    def step(x: Latents, interval: tuple[Array, ...]) -> tuple[Latents, None]:
        index, t, next_t, drift_scale, noise_scale = interval
        dt = next_t - t
        drift = sde_drift(velocity(x, t), x, t)
        diffusion = jnp.sqrt(2 * t) * jnp.sqrt(jnp.abs(dt)) * noise(index)
        return x + drift_scale * drift * dt + noise_scale * diffusion, None

    return _scan(step, x, np.arange(len(grid.time)), *grid)


def euler(velocity: VelocityFn, x: Latents, grid: SolverGrid, noise: NoiseFn) -> Latents:
    """The probability-flow ODE dx = v dt, first order; it ignores the scales and `noise`."""
    del noise

    def step(x: Latents, interval: tuple[Array, ...]) -> tuple[Latents, None]:
        t, next_t = interval
        return x + velocity(x, t) * (next_t - t), None

    return _scan(step, x, grid.time, grid.next_time)


def heun(velocity: VelocityFn, x: Latents, grid: SolverGrid, noise: NoiseFn) -> Latents:
    """The ODE by Heun's method, second order: an Euler step, then the mean of the velocities at its two ends.

    The last interval stays an Euler step, as in EDM (Karras et al. 2022, algorithm 1). The scan runs over evaluations,
    two for each interval, so that its body contains the network once.
    """
    del noise

    def evaluate(
        state: tuple[Latents, Latents, Latents], evaluation: tuple[Array, ...]
    ) -> tuple[tuple[Latents, Latents, Latents], None]:
        x, start, slope = state
        t, dt, corrects = evaluation
        v = velocity(x, t)
        corrected = start + dt * (slope + v) / 2
        return (jnp.where(corrects, corrected, x + dt * v), jnp.where(corrects, start, x), v), None

    steps, corrects = len(grid.time), np.arange(2 * len(grid.time) - 1) % 2 == 1
    dt = np.repeat(grid.next_time - grid.time, 2)[: 2 * steps - 1]
    return _scan(evaluate, (x, x, jnp.zeros_like(x)), _heun_times(grid), dt, corrects)[0]


def dpmpp_2m(velocity: VelocityFn, x: Latents, grid: SolverGrid, noise: NoiseFn) -> Latents:
    """The ODE by DPM-Solver++(2M), second order with one evaluation per interval (Lu et al. 2022, algorithm 2).

    It steps along the predicted data x - t v, extrapolated through the previous prediction.
    """
    del noise

    def step(state: tuple[Latents, Latents], interval: tuple[Array, ...]) -> tuple[tuple[Latents, Latents], None]:
        return _multistep(velocity, state, interval), None

    return _scan(step, (x, jnp.zeros_like(x)), grid.time, *multistep_coefficients(grid))[0]


def dpmpp_2m_states(velocity: VelocityFn, x: Latents, grid: SolverGrid) -> Float[Array, "states ..."]:
    """All states of `dpmpp_2m`: the noise, and the end of each interval."""

    def step(state: tuple[Latents, Latents], interval: tuple[Array, ...]) -> tuple[tuple[Latents, Latents], Latents]:
        state = _multistep(velocity, state, interval)
        return state, state[0]

    inputs = tuple(jnp.asarray(values) for values in (grid.time, *multistep_coefficients(grid)))
    _, ends = jax.lax.scan(step, (x, jnp.zeros_like(x)), inputs)
    return jnp.concatenate([x[None], ends])


def _multistep(
    velocity: VelocityFn, state: tuple[Latents, Latents], interval: tuple[Array, ...]
) -> tuple[Latents, Latents]:
    """One interval of `dpmpp_2m`: from a point and the data predicted before it, to the next of both."""
    x, previous = state
    t, keep, newest, older = interval
    data = x - t * velocity(x, t)
    return keep * x + newest * data + older * previous, data


def multistep_coefficients(
    grid: SolverGrid,
) -> tuple[Float[np.ndarray, " steps"], Float[np.ndarray, " steps"], Float[np.ndarray, " steps"]]:
    """Factors of x, of the newest data prediction and of the one before it, for each interval, in float32.

    They follow from the half log-signal-to-noise ratio lambda = log((1 - t) / t), which is infinite at both ends.
    Three intervals are therefore of first order: the first (no previous prediction), the second (the previous
    prediction is infinitely far) and the last (an infinite step).
    """
    t, next_t = grid.time.astype(np.float64), grid.next_time.astype(np.float64)
    with np.errstate(divide="ignore"):
        ratio = np.append(np.log((1 - t) / t), np.inf)
    lengths = np.diff(ratio)
    extrapolation = np.zeros(len(t))
    extrapolation[2:-1] = lengths[2:-1] / lengths[1:-2] / 2
    keep = next_t / t
    newest, older = (1 - keep) * (1 + extrapolation), -(1 - keep) * extrapolation
    return keep.astype(np.float32), newest.astype(np.float32), older.astype(np.float32)


def _starts(grid: SolverGrid) -> Float[np.ndarray, " steps"]:
    return grid.time


def _heun_times(grid: SolverGrid) -> Float[np.ndarray, " evaluations"]:
    return np.stack([grid.time, grid.next_time], axis=1).ravel()[:-1]


SOLVERS: dict[str, Solver] = {
    "euler_maruyama": Solver(euler_maruyama, _starts),
    "euler": Solver(euler, _starts),
    "heun": Solver(heun, _heun_times),
    "dpmpp_2m": Solver(dpmpp_2m, _starts),
    "flow_map": Solver(euler, _starts),  # the average velocity of an interval makes Euler's step exact
}
