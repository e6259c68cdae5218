"""What a solver's velocities need of each time, computed once for all steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from transdiff_jax.config import SamplingConfig
from transdiff_jax.flow.solvers import SOLVERS
from transdiff_jax.flow.timesteps import NUM_TIMESTEPS, solver_grid
from transdiff_jax.model.params import Params
from transdiff_jax.model.transdiff import TransDiff

Array = jax.Array


class RowsByTime(NamedTuple):
    """Values of every time that a solver asks for, looked up by the time itself."""

    times: np.ndarray  # [n], float32, each once
    rows: Any  # tree of [n, ...]

    def at(self, t: Array) -> Any:
        """The row of time `t`, exactly one of `times`; NaN for any other, which is better seen than a near one.

        A product with ones and zeros, not an index: compilers would fuse the search for an index into every use of the
        row, once for each element that is modulated.
        """
        hit = (self.times == t).astype(jnp.float32)
        weights = (hit / jnp.sum(hit))[None]  # no hit: 0 / 0

        def row(leaf: Array) -> Array:
            return jnp.tensordot(weights.astype(leaf.dtype), leaf, 1, precision=jax.lax.Precision.HIGHEST)

        return jax.tree.map(row, self.rows)


def time_table(model: TransDiff, params: Params, config: SamplingConfig) -> RowsByTime:
    """What the decoder needs of all times at which the solver of a configuration asks for velocities."""
    times = np.unique(SOLVERS[config.solver].times(solver_grid(config)))
    return RowsByTime(times, model.apply({"params": params}, times * NUM_TIMESTEPS, method=TransDiff.embed_times))
