"""A sampler that shares nothing, like the release's: the other sampler must equal it, and is timed against it.

Every image encodes all groups anew, for both halves of each guided pair. Every step makes the decoder's keys and values
and each row's time embedding anew, and runs the decoder over the doubled batch, even at times of weight 1. Tests and
`transdiff benchmark` use it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, Int

from transdiff_jax.config import SamplingConfig
from transdiff_jax.flow.guidance import Latents, Time, VelocityFn, guidance_weights, guide, interleave, is_guided
from transdiff_jax.flow.solvers import SOLVERS
from transdiff_jax.flow.timesteps import NUM_TIMESTEPS, solver_grid
from transdiff_jax.model.decoder import Jump
from transdiff_jax.model.params import Params, applied
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.nn.patches import tokens_to_latent
from transdiff_jax.sampling.fusion import Labels, Splice
from transdiff_jax.sampling.noise import SampleNoise
from transdiff_jax.sampling.time_table import RowsByTime


def naive_latents(
    model: TransDiff,
    params: Params,
    labels: Labels,
    noise: SampleNoise,
    config: SamplingConfig,
    splice: Splice | None = None,
    references: Float[Array, "b given h w c"] | None = None,
) -> Float32[Array, "b images h w c"]:
    """Takes and returns what `sample_latents` does."""
    c = model.config
    shape = (c.latent_tokens, c.latent_channels)
    images = [] if references is None else list(jnp.moveaxis(references, 1, 0))
    for number in range(len(images), c.num_images):
        image, earlier = config.of_images(c.num_images)[number], jnp.stack(images, axis=1) if images else None
        velocity = _velocity(model, params, labels, splice, earlier, image)
        steps = functools.partial(noise.step, number, shape)
        x = SOLVERS[image.solver].solve(velocity, noise.initial(shape), solver_grid(image), steps)
        images.append(tokens_to_latent(x, c.latent_size))
    return jnp.stack(images, axis=1)


def _velocity(
    model: TransDiff,
    params: Params,
    labels: Labels,
    splice: Splice | None,
    references: Float[Array, "b images h w c"] | None,
    config: SamplingConfig,
) -> VelocityFn:
    """The velocity, guided where the configuration says so, of the image that follows the earlier images."""
    times = np.unique(SOLVERS[config.solver].times(solver_grid(config)))
    weights = guidance_weights(config, times)
    student = model.config.flow_map
    guided = not student and np.any(is_guided(weights))

    def encode(classes: Int[Array | np.ndarray, " b"], null: bool) -> Float[Array, "b tokens width"]:
        dropped = jnp.full(len(classes), null)
        return applied(model, params, TransDiff.encode)(jnp.asarray(classes), dropped, references).features

    if splice is None:
        features = encode(labels, False)
    else:
        visible = splice[:, : (1 if references is None else references.shape[1] + 1) * model.config.tokens_per_image]
        features = jnp.where(visible[..., None], encode(labels[:, 1], False), encode(labels[:, 0], False))
    if guided:
        features = interleave(features, encode(labels.reshape(len(labels), -1)[:, 0], True))

    def velocity(x: Latents, t: Time) -> Float[Array, "rows tokens c"]:
        x = interleave(x, x) if guided else x
        # Otherwise the compiler would move everything that does not depend on x out of the solver's loop.
        x, z = jax.lax.optimization_barrier((x, features))
        keys_values = applied(model, params, TransDiff.condition)(z)
        timesteps = jnp.full((len(x), 1), t * NUM_TIMESTEPS)
        jump = None
        if student:
            length = 1 / config.steps if config.solver == "flow_map" else 0.0
            jump = Jump(jnp.full((len(x), 1), length), jnp.full((len(x), 1), table.at(t)[0]))
        return applied(model, params, TransDiff.velocity)(x[:, None], timesteps, keys_values, None, jump)[:, 0]

    table = RowsByTime(times, jnp.asarray(weights))
    if not guided:
        return velocity
    return lambda x, t: guide(velocity, table.at(t)[0])(x, t)
