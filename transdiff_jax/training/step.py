"""The jitted training step: loss, gradients over micro-batches, update, EMA. Non-finite steps change nothing."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Int, Key, PyTree, Shaped

from transdiff_jax import rng
from transdiff_jax.config import Config
from transdiff_jax.images.uint8 import to_unit_range
from transdiff_jax.model.mesh_checks import check_implementation
from transdiff_jax.model.params import Params
from transdiff_jax.parallel import axes
from transdiff_jax.parallel.arrays import batch_sharding, replicate, replicated
from transdiff_jax.tokenizer.base import Tokenizer
from transdiff_jax.tokenizer.make import make_tokenizer
from transdiff_jax.training.ema import update_ema, warm_rates
from transdiff_jax.training.objective import Draws, FlowMatching, Metrics, Objective
from transdiff_jax.training.optimizer import make_optimizer, make_schedule
from transdiff_jax.training.state import TrainState, abstract_state

# "label" [b], and "image" uint8 [b, images, height, width, channels] or "moments" [b, images, h, w, m]
Batch = dict[str, Shaped[Array, "b ..."]]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
# Of parameters, latents, labels, draws and a key for dropout.
LossFn = Callable[[Params, Array, Array, Draws, Key[Array, ""] | None], tuple[Array, Metrics]]


def accumulated_gradients(
    loss: LossFn,
    params: Params,
    rows: tuple[Float[Array, "b images h w c"], Int[Array, " b"], Draws],
    count: int,
    dropout_key: Key[Array, ""],
) -> tuple[Params, Metrics]:
    """Gradients and metrics of the whole batch, averaged over micro-batches.

    Args:
        loss: of parameters, latents, labels, draws and a key for dropout.
        params: of the model.
        rows: latents, labels and draws of the batch.
        count: micro-batches.
        dropout_key: of the step.
    """
    gradient = jax.grad(loss, has_aux=True)

    def micro(index: Int[Array, ""], rows: tuple[Array, Array, Draws]) -> tuple[Params, Metrics]:
        return gradient(params, *rows, jax.random.fold_in(dropout_key, index))

    def split(x: Shaped[Array, "b ..."]) -> Shaped[Array, "count rows ..."]:
        # Strided, so that each micro-batch covers all devices.
        return x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1)

    if count == 1:
        return micro(jnp.zeros((), jnp.int32), rows)

    def body(
        total: tuple[Params, Metrics], inputs: tuple[Array, tuple[Array, Array, Draws]]
    ) -> tuple[tuple[Params, Metrics], None]:
        return jax.tree.map(jnp.add, total, micro(*inputs)), None

    inputs = (jnp.arange(count), jax.tree.map(split, rows))
    shapes = jax.eval_shape(lambda: micro(*jax.tree.map(lambda x: x[0], inputs)))
    total, _ = jax.lax.scan(body, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes), inputs)
    gradients, metrics = jax.tree.map(lambda x: x / count, total)
    return gradients, metrics


def apply_gradients(
    state: TrainState, gradients: Params, loss: Float[Array, ""], config: Config
) -> tuple[TrainState, Metrics]:
    """One optimizer step and EMA update; a loss or gradient norm that is not finite leaves both out."""
    norm = optax.global_norm(gradients)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    optimizer = make_optimizer(config, state.params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    # pyrefly: ignore[bad-assignment]  # Optax returns the kind of tree that it is given, but annotates any tree
    params: Params = optax.apply_updates(state.params, updates)
    rates = config.train.ema_rates
    ema = update_ema(
        state.ema, params, warm_rates(rates, state.step - state.skipped) if config.train.ema_warmup else rates
    )
    params, opt_state, ema = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        (params, opt_state, ema),
        (state.params, state.opt_state, state.ema),
    )
    skip = (~finite).astype(jnp.int32)
    learning_rate = make_schedule(config)(state.step - state.skipped)
    new = TrainState(
        step=state.step + 1,
        skipped=state.skipped + skip,
        skipped_in_a_row=(state.skipped_in_a_row + 1) * skip,
        params=params,
        opt_state=opt_state,
        ema=ema,
    )
    metrics = {"gradient_norm": norm, "learning_rate": jnp.asarray(learning_rate), "finite": finite}
    return new, metrics | {"skipped": new.skipped, "skipped_in_a_row": new.skipped_in_a_row}


def make_train_step(config: Config, mesh: Mesh, objective: Objective | None = None, frozen: PyTree = ()) -> TrainStep:
    """The jitted step on the mesh: (state, global batch) -> (state, metrics). It donates the input state.

    Args:
        config: of the run.
        mesh: the devices.
        objective: what it minimises; None for the joint flow-matching loss.
        frozen: arrays on the mesh that the objective reads.

    Raises:
        UserError: the tokenizer cannot be used, or the mesh cannot split the model or run its attention.
    """
    tokenizer = replicate(make_tokenizer(config), mesh)
    jitted = jit_train_step(config, mesh, objective)
    constants = (tokenizer,) if objective is None else (tokenizer, frozen)
    return lambda state, batch: jitted(state, batch, *constants)


def jit_train_step(
    config: Config, mesh: Mesh, objective: Objective | None = None
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Like `make_train_step`, but what the step reads is an argument, so that it can be lowered for abstract arguments.

    Returns:
        A function of the state, the batch, the tokenizer and, with an objective, its frozen arrays.

    Raises:
        UserError: the mesh cannot split the model or run its attention.
    """
    check_implementation(config.model, mesh, training=True)
    minimised = FlowMatching(config) if objective is None else objective
    everywhere = replicated(mesh)

    def train_step(
        state: TrainState, batch: Batch, tokenizer: Tokenizer, frozen: PyTree = ()
    ) -> tuple[TrainState, Metrics]:
        labels = batch["label"]
        posterior_key = rng.key(config.seed, rng.POSTERIOR, state.step)
        dropout_key = rng.key(config.seed, rng.DROPOUT, state.step, kind=config.train.dropout_rng)
        draws = minimised.draw(len(labels), config.seed, state.step)

        def loss(
            params: Params, latents: Array, labels: Array, draws: Draws, key: Key[Array, ""] | None
        ) -> tuple[Array, Metrics]:
            return minimised.loss(params, state.ema[0], frozen, latents, labels, draws, key)

        with axes.over(mesh):
            # Cached moments save the tokenizer's encoder.
            cached = "moments" in batch
            moments = batch["moments"] if cached else tokenizer.moments(to_unit_range(batch["image"]))
            rows = (tokenizer.draw(moments, posterior_key), labels, draws)
            gradients, metrics = accumulated_gradients(loss, state.params, rows, config.train.accumulation, dropout_key)
        state, more = apply_gradients(state, gradients, metrics["loss"], config)
        return state, metrics | more

    state_sharding = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))
    kept = () if objective is None else (None,)  # frozen arrays stay split as they are
    return jax.jit(
        train_step,
        in_shardings=(state_sharding, batch_sharding(mesh), everywhere, *kept),
        out_shardings=(state_sharding, everywhere),
        donate_argnums=0,
    )
