"""The state that a training step reads and writes."""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Int

from transdiff_jax.config import Config
from transdiff_jax.model.mesh_checks import check_model
from transdiff_jax.model.params import Params, init_shapes, init_sharded_params
from transdiff_jax.parallel.arrays import abstract_arrays
from transdiff_jax.training.optimizer import make_optimizer


@flax.struct.dataclass
class TrainState:
    """State after `step` batches. Parameters, averages and optimizer moments are float32, counters int32."""

    step: Int[Array, ""]  # batches seen
    skipped: Int[Array, ""]  # of these, batches whose update was skipped because it was not finite
    skipped_in_a_row: Int[Array, ""]  # batches skipped since the last finite one
    params: Params
    opt_state: optax.OptState
    ema: tuple[Params, ...]  # one average for each rate in config.train.ema_rates


def new_state(params: Params, config: Config) -> TrainState:
    """The state before the first step; averages start as copies of `params`, which may be boxed."""
    zero = jnp.zeros((), jnp.int32)
    opt_state = make_optimizer(config, params).init(params)
    # Copied because the step donates its input, in which no two leaves may share a buffer.
    ema = tuple(jax.tree.map(jnp.copy, params) for _ in config.train.ema_rates)
    return TrainState(zero, zero, zero, params, opt_state, ema)


def abstract_state(config: Config, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the state; uses no memory.

    Raises:
        UserError: the mesh cannot split a parameter.
    """
    check_model(config.model, mesh)
    return abstract_arrays(jax.eval_shape(lambda params: new_state(params, config), init_shapes(config.model)), mesh)


def create_state(config: Config, mesh: Mesh, params: Params | None = None) -> TrainState:
    """A sharded state with the given parameters (unboxed; it takes over their memory), or with fresh ones.

    Raises:
        UserError: the mesh cannot split a parameter.
    """
    shardings = _shardings(config, mesh)
    # Adapted parameters may lie elsewhere, but a donated argument must lie where its result does.
    params = (
        init_sharded_params(config.model, config.seed, mesh)
        if params is None
        else jax.device_put(params, shardings.params)
    )
    create = jax.jit(
        lambda p: new_state(p, config), in_shardings=(shardings.params,), out_shardings=shardings, donate_argnums=0
    )
    return create(params)


def _shardings(config: Config, mesh: Mesh) -> TrainState:
    return jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))
