"""Checks optimizer steps against a golden file: AdamW, clipping and the average, through the code that trains."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Key

from transdiff_jax import rng
from transdiff_jax.config import Config, LossConfig, OptimizerConfig, TrainConfig
from transdiff_jax.convert.table import to_reference
from transdiff_jax.model.loss import LossDraws
from transdiff_jax.model.params import Params
from transdiff_jax.training.objective import FlowMatching, Metrics
from transdiff_jax.training.state import TrainState, new_state
from transdiff_jax.training.step import accumulated_gradients, apply_gradients
from transdiff_jax.verification.check import MANY_PASSES, NORM, Check, relative_error, relative_error_of_all
from transdiff_jax.verification.golden import GoldenFile
from transdiff_jax.verification.transdiff_checks import Subject, file_draws, meaningful


def check_training(file: GoldenFile, subject: Subject) -> list[Check]:
    """Checks the loss and gradient norm of each step that the file has draws for, then parameters and average.

    Errors of parameters and average are relative to the parameters. On this scale three steps of weight decay are below
    the tolerance.
    """
    measured, state = run_steps(file, subject)
    loss, norm = file.array("train/loss_and_grad_norm", None, 2).T
    checks = [
        Check("train/loss", relative_error(measured[:, 0], loss), MANY_PASSES),
        Check("train/grad_norm", relative_error(measured[:, 1], norm), NORM),
    ]
    for section, params in (("train/param", state.params), ("train/ema", state.ema[0])):
        ours, reference = trained_tensors(file, subject, section, params)
        checks.append(Check(section, relative_error_of_all(ours, reference), MANY_PASSES))
    return checks


def run_steps(file: GoldenFile, subject: Subject) -> tuple[Float[np.ndarray, "steps 2"], TrainState]:
    """The loss and gradient norm of each step, and the state after the last."""
    config = _config(file, subject)
    state = jax.jit(partial(_start, config))(subject.params)
    # The state is donated, as in training, so that a full-size model's moments are not held twice.
    train_step = jax.jit(partial(_train_step, config), donate_argnums=0)
    measured = []
    while f"train/noise_{len(measured)}" in file:
        step = len(measured)
        given = file_draws(file, subject, f"train/timesteps_{step}", f"train/noise_{step}", dropped=False)
        state, metrics = train_step(state, subject.latents, subject.labels, given)
        measured.append([float(metrics["loss"]), float(metrics["gradient_norm"])])
    return np.array(measured).reshape(-1, 2), state


def trained_tensors(
    file: GoldenFile, subject: Subject, section: str, params: Params
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Our tensors and the release's, by the release's names.

    Tensors that the release never reads still decay there, but have no place in ours: they are left out.
    """
    unused = {tensor.reference for tensor in subject.table.unused}
    reference = {name: tensor for name, tensor in file.below(f"{section}/").items() if name not in unused}
    ours = to_reference(subject.table, jax.device_get(params), {}, section)
    return meaningful(ours, reference), meaningful(reference, reference)


def _config(file: GoldenFile, subject: Subject) -> Config:
    """The release's training settings; its dropout was off."""
    rate, beta1, beta2, weight_decay, clip_norm, ema_rate = file.array("train/settings", 6).tolist()
    optimizer = OptimizerConfig(
        learning_rate=rate,
        scale_with_batch=False,
        beta1=beta1,
        beta2=beta2,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
    )
    return Config(
        model=dataclasses.replace(subject.model.config, dropout=0.0),
        loss=LossConfig(pairs_per_latent=subject.pairs),
        optimizer=optimizer,
        train=TrainConfig(batch_size=len(subject.labels), ema_rates=(ema_rate,)),
    )


def _start(config: Config, params: Params) -> TrainState:
    # A copy: the steps donate their input, and other checks read the parameters.
    return new_state(jax.tree.map(jnp.copy, params), config)


def _train_step(
    config: Config, state: TrainState, latents: Array, labels: Array, given: LossDraws
) -> tuple[TrainState, Metrics]:
    unused_key = rng.key(0, rng.DROPOUT)
    objective = FlowMatching(config)

    def loss(
        params: Params, latents: Array, labels: Array, given: LossDraws, key: Key[Array, ""] | None
    ) -> tuple[Array, Metrics]:
        return objective.loss(params, state.ema[0], (), latents, labels, given, key)

    gradients, metrics = accumulated_gradients(loss, state.params, (latents, labels, given), 1, unused_key)
    state, more = apply_gradients(state, gradients, metrics["loss"], config)
    return state, metrics | more
