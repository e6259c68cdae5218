"""The joint flow-matching loss of both networks, label dropout included (paper, equations 3 to 6)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from transdiff_jax import rng
from transdiff_jax.config import LossConfig, ModelConfig
from transdiff_jax.flow.path import interpolate, velocity_target
from transdiff_jax.flow.timesteps import NUM_TIMESTEPS, draw_training_timesteps
from transdiff_jax.model.encoder import Semantics
from transdiff_jax.model.params import Params
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.nn.patches import latent_to_tokens

Array = jax.Array


class LossDraws(NamedTuple):
    """All randomness of the loss but dropout, for a batch of b rows of `num_images` images, p pairs a latent."""

    null: Array  # [b] bool: rows whose class is dropped (all images of a row together)
    timesteps: Array  # [b, num_images, p] int32, 0..999
    noise: Array  # [b, num_images, p, latent tokens, channels], N(0, I)


def draw_loss(model: ModelConfig, loss: LossConfig, batch: int, seed: int, step: int | Array) -> LossDraws:
    """The draws of one training step, a function of (seed, step)."""
    shape = (batch, model.num_images, loss.pairs_per_latent)
    noise_shape = (*shape, model.latent_tokens, model.latent_channels)
    return LossDraws(
        jax.random.bernoulli(rng.key(seed, rng.LABEL_DROPOUT, step), model.label_dropout, (batch,)),
        draw_training_timesteps(rng.key(seed, rng.TIMESTEPS, step), shape),
        jax.random.normal(rng.key(seed, rng.NOISE, step), noise_shape),
    )


class Losses(NamedTuple):
    """Terms of the training loss, float32."""

    flow: Array  # [b, num_images, p]: mean squared error of each pair's velocity
    similarity: Array  # scalar: mean cosine similarity of the encoder's tokens (the semantic diversity term)


def semantic_similarity(encoded: Array) -> Array:
    """Mean cosine similarity over all ordered pairs of tokens, self-pairs included; [b, tokens, width] -> scalar."""
    encoded = encoded.astype(jnp.float32)
    directions = encoded / jnp.linalg.norm(encoded, axis=-1, keepdims=True)
    # The mean over all pairs of inner products is the squared norm of the mean direction.
    return jnp.mean(jnp.sum(jnp.mean(directions, axis=1) ** 2, axis=-1))


def flow_matching_losses(
    model: TransDiff,
    params: Params,
    latents: Array,
    labels: Array,
    draws: LossDraws,
    *,
    dropout_key: Array | None = None,
    freeze_encoder: bool = False,
) -> Losses:
    """The joint loss of both networks (paper, equations 3 to 6).

    Args:
        latents: images of one class in order, [b, num_images, h, w, channels].
        labels: [b].
        draws: times, noise and dropped labels.
        dropout_key: None turns dropout off.
        freeze_encoder: the encoder runs as at inference (no dropout, labels kept) and gets no gradient.

    Raises:
        ValueError: `latents` does not have the shape that the configuration says.
    """
    c = model.config
    expected = (len(labels), c.num_images, c.latent_size, c.latent_size, c.latent_channels)
    if latents.shape != expected:
        raise ValueError(f"latents must be {expected} for labels {labels.shape}, got {latents.shape}")
    encoder_rngs, decoder_rngs = _dropout_rngs(dropout_key)
    semantics = _encode(model, params, latents, labels, draws.null, encoder_rngs, freeze_encoder)
    velocity = _velocity(model, params, semantics.features, latents, draws, decoder_rngs)
    error = velocity - velocity_target(latent_to_tokens(latents)[:, :, None], draws.noise)
    return Losses(jnp.mean(error**2, axis=(-2, -1)), semantic_similarity(semantics.encoded))


def _encode(
    model: TransDiff,
    params: Params,
    latents: Array,
    labels: Array,
    null: Array,
    rngs: dict[str, Array],
    frozen: bool,
) -> Semantics:
    references = latents[:, :-1] if model.config.num_images > 1 else None
    if frozen:
        null, rngs = jnp.zeros_like(null), {}
    semantics = model.apply({"params": params}, labels, null, references, method=TransDiff.encode, rngs=rngs)
    return jax.lax.stop_gradient(semantics) if frozen else semantics


def _velocity(
    model: TransDiff, params: Params, features: Array, latents: Array, draws: LossDraws, rngs: dict[str, Array]
) -> Array:
    """Velocity at every (time, noise) pair, shaped like the noise."""
    c, variables = model.config, {"params": params}
    batch, images, pairs = draws.timesteps.shape
    t = (draws.timesteps / NUM_TIMESTEPS)[..., None, None]
    x_t = interpolate(latent_to_tokens(latents)[:, :, None], draws.noise, t)
    velocity = model.apply(
        variables,
        x_t.reshape(batch, images * pairs, c.latent_tokens, c.latent_channels),
        draws.timesteps.reshape(batch, images * pairs),
        model.apply(variables, features, method=TransDiff.condition),
        visible_features(c, pairs),
        method=TransDiff.velocity,
        rngs=rngs,
    )
    return velocity.reshape(draws.noise.shape)


def visible_features(config: ModelConfig, pairs: int) -> np.ndarray | None:
    """Which semantic tokens each decoder input of a row sees: image k those of groups 0..k.

    Returns:
        Boolean [num_images * pairs, semantic tokens], image-major; None where all see all.
    """
    if config.num_images == 1:
        return None
    image = np.repeat(np.arange(config.num_images), pairs)
    group = np.repeat(np.arange(config.num_images), config.tokens_per_image)
    return image[:, None] >= group[None, :]


def _dropout_rngs(key: Array | None) -> tuple[dict[str, Array], dict[str, Array]]:
    if key is None:
        return {}, {}
    encoder, decoder = jax.random.split(key)
    return {"dropout": encoder}, {"dropout": decoder}
