"""What a training step reads and writes, and nothing else."""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from transdiff_jax.config import Config
from transdiff_jax.model.mesh_checks import check_model
from transdiff_jax.model.params import Params, init_params, init_sharded_params
from transdiff_jax.parallel.arrays import abstract_arrays
from transdiff_jax.training.optimizer import make_optimizer

Array = jax.Array


@flax.struct.dataclass
class TrainState:
    """State after `step` batches. Parameters, averages and optimizer moments are float32."""

    step: Array  # batches seen, int32
    skipped: Array  # of them, batches whose update was skipped as not finite, int32
    skipped_in_a_row: Array  # such batches up to now without a finite one between, int32
    params: Params
    opt_state: optax.OptState
    ema: tuple[Params, ...]  # one average for each of config.train.ema_rates


def new_state(params: Params, config: Config) -> TrainState:
    """The state before the first step; averages start as copies. `params` may be boxed."""
    zero = jnp.zeros((), jnp.int32)
    opt_state = make_optimizer(config, params).init(params)
    # Copies, so that no two leaves share a buffer: the step donates its input.
    ema = tuple(jax.tree.map(jnp.copy, params) for _ in config.train.ema_rates)
    return TrainState(zero, zero, zero, params, opt_state, ema)


def abstract_state(config: Config, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the state, without any memory.

    Raises:
        UserError: the mesh cannot split a parameter.
    """
    check_model(config.model, mesh)
    return abstract_arrays(jax.eval_shape(lambda: new_state(init_params(config.model, config.seed), config)), mesh)


def create_state(config: Config, mesh: Mesh, params: Params | None = None) -> TrainState:
    """A sharded state with the given parameters (unboxed; their memory is taken over), or with fresh ones."""
    shardings = _shardings(config, mesh)
    # Adapted parameters may lie elsewhere; a donated argument must lie where its result does.
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
