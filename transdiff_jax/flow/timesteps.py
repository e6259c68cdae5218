"""The times that training draws, and those at which solvers stop."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, Key

from transdiff_jax.config import SamplingConfig

NUM_TIMESTEPS = 1000  # the network's time is t * NUM_TIMESTEPS


class SolverGrid(NamedTuple):
    """The intervals of a solver, first to last, in float32.

    The arrays are NumPy's, so that the times of network evaluations and their coefficients are known before tracing.
    The last interval of Euler-Maruyama (to t = 0) is the general step with other scales, not another code path.
    """

    time: Float[np.ndarray, " steps"]  # t at the start of the interval, in (0, 1]
    next_time: Float[np.ndarray, " steps"]  # t at its end; the last is 0
    drift_scale: Float[np.ndarray, " steps"]  # factor of the deterministic change
    noise_scale: Float[np.ndarray, " steps"]  # factor of the injected noise


def draw_training_timesteps(key: Key[Array, ""], shape: tuple[int, ...]) -> Int[Array, "..."]:
    """Integer timesteps 0..999 of logit-normal times: floor(1000 sigmoid(n)), n ~ N(0, 1), as int32.

    The truncated time enters both the interpolation and the network.
    """
    times = jax.nn.sigmoid(jax.random.normal(key, shape))
    # A sigmoid that rounds to 1 must not become timestep 1000, which the release can never draw.
    return jnp.minimum(jnp.floor(times * NUM_TIMESTEPS), NUM_TIMESTEPS - 1).astype(jnp.int32)


def solver_grid(config: SamplingConfig) -> SolverGrid:
    """`config.steps` intervals; their starts are evenly spaced from 1 to `last_time`, and the last one ends at 0.

    A flow map was trained down to 0, so its jumps are of equal length.
    """
    if config.solver == "flow_map":
        starts = np.linspace(1.0, 0.0, config.steps + 1)[:-1]
    else:
        starts = np.linspace(1.0, config.last_time, config.steps) if config.steps > 1 else np.ones(1)
    grid = grid_of_times(np.append(starts, 0.0))
    drift = np.full(config.steps, config.drift_scale, np.float32)
    noise = np.full(config.steps, config.noise_scale, np.float32)
    drift[-1], noise[-1] = 1.0, 0.0
    return grid._replace(drift_scale=drift, noise_scale=noise)


def grid_of_times(times: Float[np.ndarray, " states"]) -> SolverGrid:
    """The intervals between decreasing times, with scales of 1 and 0: those of an ODE."""
    times = np.asarray(times, np.float32)
    ones = np.ones(len(times) - 1, np.float32)
    return SolverGrid(times[:-1], times[1:], ones, 0 * ones)
