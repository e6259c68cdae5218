"""Sampling: the loop of Multi-Reference Autoregression (paper, section 3.3), from labels and noise to latents.

A sample is a function of (parameters, label, seed, sample index): its noise depends neither on the batch that it is
computed in nor on the number of devices, and a restart does not change it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32

from transdiff_jax.config import SamplingConfig
from transdiff_jax.flow.guidance import Latents, Time, VelocityFn, guidance_weights, guide, is_guided
from transdiff_jax.flow.solvers import SOLVERS
from transdiff_jax.flow.timesteps import solver_grid
from transdiff_jax.model.decoder import TimeCondition
from transdiff_jax.model.params import Params, applied
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.nn.attention import KeysValues
from transdiff_jax.nn.patches import tokens_to_latent
from transdiff_jax.nn.stack import unstack
from transdiff_jax.parallel import axes
from transdiff_jax.sampling.conditions import Conditions, first_conditions, next_conditions
from transdiff_jax.sampling.fusion import Labels, Splice
from transdiff_jax.sampling.noise import SampleNoise
from transdiff_jax.sampling.time_table import RowsByTime, time_table


def sample_latents(
    model: TransDiff,
    params: Params,
    labels: Labels,
    noise: SampleNoise,
    config: SamplingConfig,
    splice: Splice | None = None,
    references: Float[Array, "b given h w c"] | None = None,
) -> Float32[Array, "b images h w c"]:
    """Latents of all images of each sample, in order; the last image is the published result.

    Args:
        model: both networks.
        params: their parameters.
        labels: a class in [0, num_classes), or two to fuse, for each sample.
        noise: initial and step noise of the samples.
        config: solver, steps, guidance, scales.
        splice: for fused classes; None otherwise.
        references: the first images of each sequence, fewer than all; the others follow them. None: all are sampled.

    Raises:
        ValueError: labels, noise, splice and references do not fit each other and the model.
    """
    c = model.config
    if noise.batch != len(labels):
        raise ValueError(f"there is noise of {noise.batch} samples for {len(labels)} labels: give as many of each")
    given = _given(references, len(labels), c.num_images)
    settings = config.of_images(c.num_images)[len(given) :]
    tables = _time_tables(model, params, settings)
    weights = [_pass_weights(model, image, table) for image, table in zip(settings, tables, strict=True)]
    shape = (c.latent_tokens, c.latent_channels)
    guided = any(np.any(is_guided(weight)) for weight in weights)
    step_params = applied(model, params, TransDiff.step_weights)()
    conditions = first_conditions(model, params, labels, splice, guided=guided)
    images: list[Array] = []
    for reference in given:
        images.append(reference.astype(jnp.float32))
        conditions = next_conditions(model, params, conditions, images[-1])
    for number, (image, table, weight) in enumerate(zip(settings, tables, weights, strict=True), len(given)):
        if len(images) > len(given):
            conditions = next_conditions(model, params, conditions, images[-1])
        velocity = _velocity(model, step_params, conditions, table, weight)
        steps = functools.partial(noise.step, number, shape)
        x = SOLVERS[image.solver].solve(velocity, noise.initial(shape), solver_grid(image), steps)
        images.append(tokens_to_latent(x, c.latent_size))
    return jnp.stack(images, axis=1)


def _given(references: Float[Array, "b given h w c"] | None, batch: int, num_images: int) -> list[Latents]:
    """The given images of all samples, in order."""
    if references is None:
        return []
    if len(references) != batch or not 0 < references.shape[1] < num_images:
        raise ValueError(
            f"references of shape {references.shape} must be at least one and at most {num_images - 1} for each of "
            f"{batch} samples"
        )
    return [references[:, number] for number in range(references.shape[1])]


def _time_tables(
    model: TransDiff, params: Params, settings: tuple[SamplingConfig, ...]
) -> list[RowsByTime[TimeCondition]]:
    """The table of each image; images with the same times share one, and of a student with the same weight too."""
    keys = [(image.steps, image.guidance if model.config.flow_map else None) for image in settings]
    tables = {key: time_table(model, params, image) for key, image in zip(keys, settings, strict=True)}
    return [tables[key] for key in keys]


def _pass_weights(model: TransDiff, image: SamplingConfig, table: RowsByTime[TimeCondition]) -> Float[np.ndarray, " n"]:
    """The guidance weights of the table's times; 1 for a student, which takes the weight itself in one pass."""
    return np.ones_like(table.times) if model.config.flow_map else guidance_weights(image, table.times)


def _velocity(
    model: TransDiff,
    step_params: Params,
    conditions: Conditions,
    table: RowsByTime[TimeCondition],
    weights: Float[np.ndarray, " n"],
) -> VelocityFn:
    """The velocity under conditions, guided at the times of the table whose weight is above 1."""

    def velocity(keys_values: KeysValues) -> VelocityFn:
        layers = unstack(keys_values)  # here and not in a step, so that the solver's loop copies nothing

        def at(x: Latents, t: Time) -> Float[Array, "rows tokens c"]:
            x, split = axes.gather_inside(x, step_params)
            return applied(model, split, TransDiff.velocity_at)(x, table.at(t), layers)

        return at

    def guided(pairs: VelocityFn) -> VelocityFn:
        return lambda x, t: guide(pairs, weight_at(t))(x, t)

    def weight_at(t: Time) -> Float[Array, ""]:
        return RowsByTime(table.times, jnp.asarray(weights)).at(t)[0]

    wanted = is_guided(weights)
    if not np.any(wanted):
        return velocity(conditions.conditional)
    pairs = guided(velocity(conditions.pairs()))
    if np.all(wanted):
        return pairs
    single = velocity(conditions.conditional)
    return lambda x, t: jax.lax.cond(is_guided(weight_at(t)), pairs, single, x, t)
