"""What a student's step draws: times, weights and noise, as functions of (seed, step)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float32, Int, Key

from transdiff_jax import rng
from transdiff_jax.config import DistillationConfig, LossConfig, ModelConfig
from transdiff_jax.distillation.teacher import PATH_TIMES, Inputs, Values

MIN_TIME = 0.001  # of a draw; the networks never see t = 0


class Draws(NamedTuple):
    """All randomness of a step but dropout. An input is one pair of times with its noise and weight."""

    t: Values  # start of each jump, in (0, 1]
    r: Values  # its end, in [0, t]
    guidance: Values  # the weight w
    noise: Inputs  # N(0, I)


class PathDraws(NamedTuple):
    """All randomness of a step on the teacher's paths but dropout: one path for each image, several jumps on it."""

    start: Int[Array, "b images inputs"]  # state at which the jump starts; 0 is noise
    end: Int[Array, "b images inputs"]  # a later state
    guidance: Float32[Array, "b images"]
    noise: Float32[Array, "b images tokens c"]


def anchors(distillation: DistillationConfig, loss: LossConfig) -> int:
    """How many of the inputs of each latent are anchors; they come first."""
    if distillation.objective == "guidance":
        return loss.pairs_per_latent
    return round(distillation.anchor_share * loss.pairs_per_latent)


def draw_guidance(key: Key[Array, ""], weights: tuple[float, ...], shape: tuple[int, ...]) -> Float32[Array, "..."]:
    """The fixed weight, or uniform draws from the range (low, high)."""
    low, high = weights[0], weights[-1]
    return jax.random.uniform(key, shape, minval=low, maxval=high) if low < high else jnp.full(shape, low, jnp.float32)


def draw_times(
    key: Key[Array, ""], distillation: DistillationConfig, shape: tuple[int, ...]
) -> tuple[Float32[Array, "..."], Float32[Array, "..."]]:
    """Ends t >= r of jumps: two uniform times in order, each of them moved to its end of the path with some share."""
    points, at_noise, at_data = jax.random.split(key, 3)
    pair = jax.random.uniform(points, (2, *shape))
    noise = jax.random.bernoulli(at_noise, distillation.noise_end_share, shape)
    data = jax.random.bernoulli(at_data, distillation.data_end_share, shape)
    t = jnp.maximum(jnp.where(noise, 1.0, pair.max(axis=0)), MIN_TIME)
    return t, jnp.minimum(jnp.where(data, 0.0, pair.min(axis=0)), t)


def draw_jumps(
    model: ModelConfig,
    loss: LossConfig,
    distillation: DistillationConfig,
    batch: int,
    seed: int | Int[Array, ""],
    step: int | Int[Array, ""],
) -> Draws:
    """The draws of one step for so many rows, a function of (seed, step)."""
    shape = (batch, model.num_images, loss.pairs_per_latent)
    t, r = draw_times(rng.key(seed, rng.TIMESTEPS, step), distillation, shape)
    is_anchor = np.arange(loss.pairs_per_latent) < anchors(distillation, loss)
    noise_shape = (*shape, model.latent_tokens, model.latent_channels)
    return Draws(
        t,
        jnp.where(is_anchor, t, r),
        draw_guidance(rng.key(seed, rng.GUIDANCE, step), distillation.guidance, shape),
        jax.random.normal(rng.key(seed, rng.NOISE, step), noise_shape),
    )


def draw_path_jumps(
    model: ModelConfig,
    loss: LossConfig,
    distillation: DistillationConfig,
    batch: int,
    seed: int | Int[Array, ""],
    step: int | Int[Array, ""],
) -> PathDraws:
    """Like `draw_jumps`, for jumps between two states of a path; each end has its share at the path's own end."""
    shape, last = (batch, model.num_images, loss.pairs_per_latent), len(PATH_TIMES) - 1
    first, second, at_noise, at_data = jax.random.split(rng.key(seed, rng.TIMESTEPS, step), 4)
    noise = jax.random.bernoulli(at_noise, distillation.noise_end_share, shape)
    data = jax.random.bernoulli(at_data, distillation.data_end_share, shape)
    start = jnp.where(noise, 0, jax.random.randint(first, shape, 0, last))
    # Uniform over the later states: the bound depends on the start.
    offset = jnp.floor(jax.random.uniform(second, shape) * (last - start)).astype(jnp.int32)
    end = jnp.where(data, last, jnp.minimum(start + 1 + offset, last))
    return PathDraws(
        start,
        end,
        draw_guidance(rng.key(seed, rng.GUIDANCE, step), distillation.guidance, shape[:2]),
        jax.random.normal(rng.key(seed, rng.NOISE, step), (*shape[:2], model.latent_tokens, model.latent_channels)),
    )
