"""The jitted training step: loss, gradients over micro-batches, update, EMA; non-finite steps change nothing."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from transdiff_jax import rng
from transdiff_jax.config import Config
from transdiff_jax.flow.timesteps import NUM_TIMESTEPS
from transdiff_jax.model.loss import LossDraws, draw_loss, flow_matching_losses
from transdiff_jax.model.mesh_checks import check_implementation
from transdiff_jax.model.params import Params
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.parallel import axes
from transdiff_jax.parallel.arrays import batch_sharding, replicate, replicated
from transdiff_jax.tokenizer.base import Tokenizer
from transdiff_jax.tokenizer.make import make_tokenizer
from transdiff_jax.training.ema import update_ema
from transdiff_jax.training.optimizer import make_optimizer, make_schedule
from transdiff_jax.training.state import TrainState, abstract_state

Array = jax.Array
# "label" [b], and "image" [b, num_images, height, width, channels] in [-1, 1] or "moments" [b, num_images, h, w, m]
Batch = dict[str, Array]
Metrics = dict[str, Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]

TIMESTEP_BUCKETS = 4  # the loss is reported for each quarter of the path


def loss_and_metrics(
    params: Params,
    model: TransDiff,
    config: Config,
    latents: Array,
    labels: Array,
    draws: LossDraws,
    dropout_key: Array | None,
) -> tuple[Array, Metrics]:
    """The scalar that is minimised, and what it is made of."""
    losses = flow_matching_losses(
        model, params, latents, labels, draws, dropout_key=dropout_key, freeze_encoder=config.train.only == "decoder"
    )
    similarity, weight = losses.similarity, config.loss.diversity_weight
    if weight == 0:
        similarity = jax.lax.stop_gradient(similarity)  # a metric alone: nothing goes back through it
    loss = jnp.mean(losses.flow) + (weight * similarity if weight else 0)
    bucket = draws.timesteps * TIMESTEP_BUCKETS // NUM_TIMESTEPS
    member = jax.nn.one_hot(bucket, TIMESTEP_BUCKETS)
    metrics = {
        "loss": loss,
        "flow_loss": jnp.mean(losses.flow),
        "semantic_similarity": similarity,
        "bucket_loss": jnp.einsum("bipk,bip->k", member, losses.flow),
        "bucket_count": jnp.sum(member, axis=(0, 1, 2)),
    }
    return loss, metrics


def accumulated_gradients(
    params: Params,
    model: TransDiff,
    config: Config,
    latents: Array,
    labels: Array,
    draws: LossDraws,
    dropout_key: Array,
) -> tuple[Params, Metrics]:
    """Gradients and metrics of the whole batch, computed in `train.accumulation` micro-batches and averaged."""
    count = config.train.accumulation
    gradient = jax.grad(loss_and_metrics, has_aux=True)

    def micro(index: Array, rows: tuple[Array, Array, LossDraws]) -> tuple[Params, Metrics]:
        return gradient(params, model, config, *rows, jax.random.fold_in(dropout_key, index))

    def split(x: Array) -> Array:
        # Strided, so that every micro-batch is spread over all devices.
        return x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1)

    rows = (latents, labels, draws)
    if count == 1:
        return micro(jnp.zeros((), jnp.int32), rows)

    def body(total: Any, inputs: tuple[Array, Any]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, micro(*inputs)), None

    inputs = (jnp.arange(count), jax.tree.map(split, rows))
    shapes = jax.eval_shape(lambda: micro(*jax.tree.map(lambda x: x[0], inputs)))
    total, _ = jax.lax.scan(body, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes), inputs)
    gradients, metrics = jax.tree.map(lambda x: x / count, total)
    return gradients, metrics


def apply_gradients(
    state: TrainState, gradients: Params, loss: Array, config: Config
) -> tuple[TrainState, dict[str, Array]]:
    """One optimizer step and EMA update; with a non-finite loss or gradient norm all of it is left out."""
    norm = optax.global_norm(gradients)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    optimizer = make_optimizer(config, state.params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = update_ema(state.ema, params, config.train.ema_rates)
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


def make_train_step(config: Config, mesh: Mesh) -> TrainStep:
    """The jitted step over the mesh: (state, global batch) -> (state, metrics). The input state is donated."""
    tokenizer = replicate(make_tokenizer(config), mesh)
    jitted = jit_train_step(config, mesh)
    return lambda state, batch: jitted(state, batch, tokenizer)


def jit_train_step(config: Config, mesh: Mesh) -> Callable[[TrainState, Batch, Tokenizer], tuple[TrainState, Metrics]]:
    """`make_train_step` before it has a tokenizer, which is an argument; it can be lowered for abstract arguments.

    Raises:
        UserError: the mesh cannot split the model, or cannot run its attention.
    """
    check_implementation(config.model, mesh, training=True)
    model = TransDiff(config.model)
    everywhere = replicated(mesh)

    def train_step(state: TrainState, batch: Batch, tokenizer: Tokenizer) -> tuple[TrainState, Metrics]:
        labels = batch["label"]
        posterior_key = rng.key(config.seed, rng.POSTERIOR, state.step)
        dropout_key = rng.key(config.seed, rng.DROPOUT, state.step)
        draws = draw_loss(config.model, config.loss, len(labels), config.seed, state.step)
        with axes.over(mesh):
            # Cached moments spare the encoder.
            moments = batch["moments"] if "moments" in batch else tokenizer.moments(batch["image"])
            latents = tokenizer.draw(moments, posterior_key)
            gradients, metrics = accumulated_gradients(state.params, model, config, latents, labels, draws, dropout_key)
        state, more = apply_gradients(state, gradients, metrics["loss"], config)
        return state, metrics | more

    state_sharding = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))
    return jax.jit(
        train_step,
        in_shardings=(state_sharding, batch_sharding(mesh), everywhere),
        out_shardings=(state_sharding, everywhere),
        donate_argnums=0,
    )
