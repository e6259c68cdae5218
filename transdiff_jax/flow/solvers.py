"""Solvers of the reverse process: one `lax.scan` over the grid, from noise at t = 1 to data at t = 0."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from transdiff_jax.flow.guidance import VelocityFn
from transdiff_jax.flow.path import sde_drift
from transdiff_jax.flow.timesteps import SolverGrid

Array = jax.Array
NoiseFn = Callable[[Array], Array]  # interval index -> N(0, I) noise like x
Solver = Callable[[VelocityFn, Array, SolverGrid, NoiseFn], Array]


def euler_maruyama(velocity: VelocityFn, x: Array, grid: SolverGrid, noise: NoiseFn) -> Array:
    """The reverse SDE with g^2 = 2t, first order (the solver of the published scores).

    Args:
        velocity: the (guided) velocity.
        x: initial noise [b, tokens, channels], float32.
        grid: times and scales; dt = next_time - time is negative.
        noise: standard normal noise of each interval; not added where noise_scale is 0.

    Returns:
        The sample at t = 0, shaped like `x`.
    """

    def step(x: Array, index: Array) -> tuple[Array, None]:
        t, next_t, drift_scale, noise_scale = (values[index] for values in grid)
        dt = next_t - t
        drift = sde_drift(velocity(x, t), x, t)
        diffusion = jnp.sqrt(2 * t) * jnp.sqrt(jnp.abs(dt)) * noise(index)
        return x + drift_scale * drift * dt + noise_scale * diffusion, None

    return jax.lax.scan(step, x, jnp.arange(len(grid.time)))[0]


def euler(velocity: VelocityFn, x: Array, grid: SolverGrid, noise: NoiseFn) -> Array:
    """The probability-flow ODE dx = v dt, first order; deterministic, so scales and `noise` do not enter."""
    del noise

    def step(x: Array, index: Array) -> tuple[Array, None]:
        t = grid.time[index]
        return x + velocity(x, t) * (grid.next_time[index] - t), None

    return jax.lax.scan(step, x, jnp.arange(len(grid.time)))[0]


SOLVERS: dict[str, Solver] = {"euler_maruyama": euler_maruyama, "euler": euler}
