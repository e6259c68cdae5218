"""What the decoder needs of each time of a solver, computed once for all steps."""

import dataclasses
from typing import Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32

from transdiff_jax.config import SamplingConfig
from transdiff_jax.flow.guidance import Time, guidance_weights
from transdiff_jax.flow.solvers import SOLVERS
from transdiff_jax.flow.timesteps import NUM_TIMESTEPS, solver_grid
from transdiff_jax.model.decoder import Jump, TimeCondition
from transdiff_jax.model.params import Params, applied
from transdiff_jax.model.transdiff import TransDiff

Rows = TypeVar("Rows")  # a tree of arrays with n rows


@dataclasses.dataclass(frozen=True)
class RowsByTime(Generic[Rows]):
    """A row for every time at which a solver evaluates the velocity, looked up by the time itself."""

    times: Float32[np.ndarray, " n"]  # each once
    rows: Rows

    def at(self, t: Time) -> Rows:
        """The row of time `t`, with a leading axis of one; NaN unless `t` is exactly one of `times`.

        NaN is easier to notice than the row of a near time.
        """
        hit = self.times == t
        found, index = jnp.any(hit), jnp.argmax(hit)

        def row(leaf: Float[Array, "n ..."]) -> Float[Array, "1 ..."]:
            return jnp.where(found, jax.lax.dynamic_slice_in_dim(leaf, index, 1), jnp.nan)

        # Without the barrier compilers fuse the search into every use of the row, once for each modulated element.
        return jax.lax.optimization_barrier(jax.tree.map(row, self.rows))


def time_table(model: TransDiff, params: Params, config: SamplingConfig) -> RowsByTime[TimeCondition]:
    """The decoder's modulation at all times at which the configured solver evaluates the velocity.

    A student's also depends on the guidance weight of each time, and on the length of the jump that starts there.
    """
    grid = solver_grid(config)
    times, first = np.unique(SOLVERS[config.solver].times(grid), return_index=True)
    embed = applied(model, params, TransDiff.embed_times)
    if not model.config.flow_map:
        return RowsByTime(times, embed(jnp.asarray(times * NUM_TIMESTEPS)))
    length = (grid.time - grid.next_time)[first] if config.solver == "flow_map" else np.zeros_like(times)
    jump = Jump(jnp.asarray(length), jnp.asarray(guidance_weights(config, times)))
    return RowsByTime(times, embed(jnp.asarray(times * NUM_TIMESTEPS), jump))
