"""The jitted training step: loss, gradients over micro-batches, update, EMA. Non-finite steps change nothing."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Int, Key, Shaped

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

# "label" [b], and "image" [b, images, height, width, channels] in [-1, 1] or "moments" [b, images, h, w, m]
Batch = dict[str, Shaped[Array, "b ..."]]
Metrics = dict[str, Shaped[Array, "..."]]  # scalars, and vectors of TIMESTEP_BUCKETS
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]

TIMESTEP_BUCKETS = 4  # the loss is also reported for each quarter of the path


def loss_and_metrics(
    params: Params,
    model: TransDiff,
    config: Config,
    latents: Float[Array, "b images h w c"],
    labels: Int[Array, " b"],
    draws: LossDraws,
    dropout_key: Key[Array, ""] | None,
) -> tuple[Float[Array, ""], Metrics]:
    """The loss to minimise, and metrics of its parts (paper, equations 3 to 6).

    Args:
        params: of the model.
        model: both networks.
        config: of the run.
        latents: images of one class in each row, in the order of their sequence.
        labels: the class of each row.
        draws: times, noise and dropped labels.
        dropout_key: None turns dropout off.
    """
    losses = flow_matching_losses(
        model, params, latents, labels, draws, dropout_key=dropout_key, freeze_encoder=config.train.only == "decoder"
    )
    similarity, weight = losses.similarity, config.loss.diversity_weight
    if weight == 0:
        similarity = jax.lax.stop_gradient(similarity)  # only a metric: no backward pass goes through it
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
    latents: Float[Array, "b images h w c"],
    labels: Int[Array, " b"],
    draws: LossDraws,
    dropout_key: Key[Array, ""],
) -> tuple[Params, Metrics]:
    """Gradients and metrics of the whole batch, averaged over `train.accumulation` micro-batches."""
    count = config.train.accumulation
    gradient = jax.grad(loss_and_metrics, has_aux=True)

    def micro(index: Int[Array, ""], rows: tuple[Array, Array, LossDraws]) -> tuple[Params, Metrics]:
        return gradient(params, model, config, *rows, jax.random.fold_in(dropout_key, index))

    def split(x: Shaped[Array, "b ..."]) -> Shaped[Array, "count rows ..."]:
        # Strided, so that each micro-batch covers all devices.
        return x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1)

    rows = (latents, labels, draws)
    if count == 1:
        return micro(jnp.zeros((), jnp.int32), rows)

    def body(
        total: tuple[Params, Metrics], inputs: tuple[Array, tuple[Array, Array, LossDraws]]
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
    """The jitted step on the mesh: (state, global batch) -> (state, metrics). It donates the input state.

    Raises:
        UserError: the tokenizer cannot be used, or the mesh cannot split the model or run its attention.
    """
    tokenizer = replicate(make_tokenizer(config), mesh)
    jitted = jit_train_step(config, mesh)
    return lambda state, batch: jitted(state, batch, tokenizer)


def jit_train_step(config: Config, mesh: Mesh) -> Callable[[TrainState, Batch, Tokenizer], tuple[TrainState, Metrics]]:
    """Like `make_train_step`, but the tokenizer is an argument, so that it can be lowered for abstract arguments.

    Raises:
        UserError: the mesh cannot split the model or run its attention.
    """
    check_implementation(config.model, mesh, training=True)
    model = TransDiff(config.model)
    everywhere = replicated(mesh)

    def train_step(state: TrainState, batch: Batch, tokenizer: Tokenizer) -> tuple[TrainState, Metrics]:
        labels = batch["label"]
        posterior_key = rng.key(config.seed, rng.POSTERIOR, state.step)
        dropout_key = rng.key(config.seed, rng.DROPOUT, state.step, kind=config.train.dropout_rng)
        draws = draw_loss(config.model, config.loss, len(labels), config.seed, state.step)
        with axes.over(mesh):
            # Cached moments save the tokenizer's encoder.
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
