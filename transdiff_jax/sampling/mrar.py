"""Sampling: from labels and noise to images, the jitted loop of Multi-Reference Autoregression (paper, section 3.3).

A sample is a function of (parameters, label, seed, sample index): its noise does not depend on the batch it is
computed in, the number of devices or a restart.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from transdiff_jax.config import SamplingConfig
from transdiff_jax.flow.guidance import VelocityFn, guidance_weights, guide, is_guided
from transdiff_jax.flow.solvers import SOLVERS
from transdiff_jax.flow.timesteps import solver_grid
from transdiff_jax.model.params import Params
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.nn.attention import GuidedPair, KeysValues
from transdiff_jax.nn.patches import tokens_to_latent
from transdiff_jax.parallel import axes
from transdiff_jax.sampling.conditions import Conditions, first_conditions, next_conditions
from transdiff_jax.sampling.noise import SampleNoise
from transdiff_jax.sampling.time_table import RowsByTime, time_table

Array = jax.Array


def sample_latents(
    model: TransDiff,
    params: Params,
    labels: Array,
    noise: SampleNoise,
    config: SamplingConfig,
    splice: Array | None = None,
) -> Array:
    """Latents of all images of each sample, in order; the last image is the published result.

    Args:
        labels: classes in [0, num_classes): [b], or [b, 2] where two are fused.
        noise: initial and step noise of the b samples.
        config: solver, steps, guidance, scales.
        splice: which semantic tokens take the second class's feature, bool [b, num_images * tokens_per_image]; for
            labels [b, 2].

    Returns:
        [b, num_images, h, w, channels], float32.
    """
    c = model.config
    if noise.batch != len(labels):
        raise ValueError(f"noise of {noise.batch} samples for {len(labels)} labels")
    settings = config.of_images(c.num_images)
    tables = {image.steps: time_table(model, params, image) for image in settings}
    weights = [guidance_weights(image, tables[image.steps].times) for image in settings]
    shape = (c.latent_tokens, c.latent_channels)
    guided = any(is_guided(weight).any() for weight in weights)
    conditions = first_conditions(model, params, labels, splice, guided=guided)
    images: list[Array] = []
    for number, (image, weight) in enumerate(zip(settings, weights, strict=True)):
        if images:
            conditions = next_conditions(model, params, conditions, images[-1])
        velocity = _velocity(model, params, conditions, tables[image.steps], weight)
        steps = functools.partial(noise.step, number, shape)
        x = SOLVERS[image.solver].solve(velocity, noise.initial(shape), solver_grid(image), steps)
        images.append(tokens_to_latent(x, c.latent_size))
    return jnp.stack(images, axis=1)


def _velocity(
    model: TransDiff, params: Params, conditions: Conditions, table: RowsByTime, weights: np.ndarray
) -> VelocityFn:
    """The velocity under conditions, guided at those times of the table whose weight asks for it."""

    def velocity(x: Array, t: Array, keys_values: KeysValues | GuidedPair) -> Array:
        x, split = axes.gather_inside(x, params)
        return model.apply({"params": split}, x, table.at(t), keys_values, method=TransDiff.velocity_at)

    def single(x: Array, t: Array) -> Array:
        return velocity(x, t, conditions.conditional)

    def pair(x: Array, t: Array) -> Array:
        return velocity(x, t, conditions.pair())

    def guided(x: Array, t: Array) -> Array:
        return guide(pair, weight_at(t))(x, t)

    def weight_at(t: Array) -> Array:
        return RowsByTime(table.times, jnp.asarray(weights)).at(t)[0]

    wanted = is_guided(weights)
    if wanted.all():
        return guided
    if not wanted.any():
        return single
    return lambda x, t: jax.lax.cond(is_guided(weight_at(t)), guided, single, x, t)
