"""The sampler that shares nothing, as the release's does not: what the other must equal, and is timed against.

Every image encodes all groups anew, for both halves of each guided pair; every step makes the decoder's keys and
values and each row's time embedding anew and runs the decoder over the doubled batch, at times of weight 1 too. Tests
and cli.benchmark use it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from transdiff_jax.config import SamplingConfig
from transdiff_jax.flow.guidance import VelocityFn, guidance_weights, guide, interleave, is_guided
from transdiff_jax.flow.solvers import SOLVERS
from transdiff_jax.flow.timesteps import NUM_TIMESTEPS, solver_grid
from transdiff_jax.model.params import Params
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.nn.patches import tokens_to_latent
from transdiff_jax.sampling.noise import SampleNoise
from transdiff_jax.sampling.time_table import RowsByTime

Array = jax.Array


def naive_latents(
    model: TransDiff,
    params: Params,
    labels: Array,
    noise: SampleNoise,
    config: SamplingConfig,
    splice: Array | None = None,
) -> Array:
    """Arguments and result are those of `sampling.sample_latents`."""
    c = model.config
    shape = (c.latent_tokens, c.latent_channels)
    images: list[Array] = []
    for number, image in enumerate(config.of_images(c.num_images)):
        references = jnp.stack(images, axis=1) if images else None
        velocity = _velocity(model, params, labels, splice, references, image)
        steps = functools.partial(noise.step, number, shape)
        x = SOLVERS[image.solver].solve(velocity, noise.initial(shape), solver_grid(image), steps)
        images.append(tokens_to_latent(x, c.latent_size))
    return jnp.stack(images, axis=1)


def _velocity(
    model: TransDiff,
    params: Params,
    labels: Array,
    splice: Array | None,
    references: Array | None,
    config: SamplingConfig,
) -> VelocityFn:
    """The (guided) velocity of the image that follows `references`."""
    variables = {"params": params}
    times = np.unique(SOLVERS[config.solver].times(solver_grid(config)))
    weights = guidance_weights(config, times)
    guided = is_guided(weights).any()

    def encode(classes: Array, null: bool) -> Array:
        return model.apply(
            variables, classes, jnp.full(len(classes), null), references, method=TransDiff.encode
        ).features

    if splice is None:
        features = encode(labels, False)
    else:
        visible = splice[:, : (1 if references is None else references.shape[1] + 1) * model.config.tokens_per_image]
        features = jnp.where(visible[..., None], encode(labels[:, 1], False), encode(labels[:, 0], False))
    if guided:
        features = interleave(features, encode(labels.reshape(len(labels), -1)[:, 0], True))

    def velocity(x: Array, t: Array) -> Array:
        x = interleave(x, x) if guided else x
        # The compiler would move what does not depend on x out of the solver's loop.
        x, z = jax.lax.optimization_barrier((x, features))
        keys_values = model.apply(variables, z, method=TransDiff.condition)
        timesteps = jnp.full((len(x), 1), t * NUM_TIMESTEPS)
        return model.apply(variables, x[:, None], timesteps, keys_values, method=TransDiff.velocity)[:, 0]

    if not guided:
        return velocity
    table = RowsByTime(times, jnp.asarray(weights))
    return lambda x, t: guide(velocity, table.at(t)[0])(x, t)
