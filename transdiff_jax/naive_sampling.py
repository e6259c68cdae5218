"""The sampler that shares nothing, as the release's does not: what the other must equal, and is timed against.

Every image encodes all groups anew, for both halves of each guided pair; every step makes the decoder's keys and
values and each row's time embedding anew and runs the decoder over the doubled batch. Tests and cli.benchmark use it.
"""

import functools

import jax
import jax.numpy as jnp

from transdiff_jax.config import SamplingConfig
from transdiff_jax.flow.guidance import VelocityFn, guide, interleave, is_guided
from transdiff_jax.flow.solvers import SOLVERS
from transdiff_jax.flow.timesteps import NUM_TIMESTEPS, solver_grid
from transdiff_jax.model.transdiff import Params, TransDiff, tokens_to_latent
from transdiff_jax.sampling import SampleNoise

Array = jax.Array


def naive_latents(model: TransDiff, params: Params, labels: Array, noise: SampleNoise, config: SamplingConfig) -> Array:
    """Arguments and result are those of `sampling.sample_latents`."""
    c = model.config
    grid, solver = solver_grid(config), SOLVERS[config.solver]
    weights = config.guidance if len(config.guidance) > 1 else config.guidance * c.num_images
    shape = (c.latent_tokens, c.latent_channels)
    images: list[Array] = []
    for image, weight in enumerate(weights):
        velocity = _velocity(model, params, labels, images, weight)
        x = solver(velocity, noise.initial(shape), grid, functools.partial(noise.step, image, shape))
        images.append(tokens_to_latent(x, c.latent_size))
    return jnp.stack(images, axis=1)


def _velocity(model: TransDiff, params: Params, labels: Array, images: list[Array], weight: float) -> VelocityFn:
    """The (guided) velocity of the image that follows `images`."""
    guided, variables = is_guided(weight), {"params": params}
    references = jnp.stack(images, axis=1) if images else None
    null = jnp.zeros(labels.shape, bool)
    if guided:
        labels, null = interleave(labels, labels), interleave(null, ~null)
        references = None if references is None else interleave(references, references)
    features = model.apply(variables, labels, null, references, method="encode").features

    def velocity(x: Array, t: Array) -> Array:
        x = interleave(x, x) if guided else x
        # The compiler would move what does not depend on x out of the solver's loop.
        x, z = jax.lax.optimization_barrier((x, features))
        keys_values = model.apply(variables, z, method="condition")
        timesteps = jnp.full((len(x), 1), t * NUM_TIMESTEPS)
        return model.apply(variables, x[:, None], timesteps, keys_values, method="velocity")[:, 0]

    return guide(velocity, weight) if guided else velocity
