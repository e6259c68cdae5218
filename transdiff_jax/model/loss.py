"""The joint flow-matching loss of both networks, label dropout included (paper, equations 3 to 6)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from transdiff_jax import rng
from transdiff_jax.config import LossConfig, ModelConfig
from transdiff_jax.flow.path import interpolate, velocity_target
from transdiff_jax.flow.timesteps import NUM_TIMESTEPS, draw_training_timesteps
from transdiff_jax.model.encoder import Semantics
from transdiff_jax.model.params import Params, Rngs, applied
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.nn.patches import latent_to_tokens


class LossDraws(NamedTuple):
    """All randomness of the loss except dropout."""

    null: Bool[Array, " b"]  # rows whose class is dropped, for all their images together
    timesteps: Int[Array, "b images pairs"]  # 0..999
    noise: Float[Array, "b images pairs tokens c"]  # N(0, I)


def draw_loss(
    model: ModelConfig, loss: LossConfig, batch: int, seed: int | Int[Array, ""], step: int | Int[Array, ""]
) -> LossDraws:
    """The draws of one training step for a batch of so many rows, a function of (seed, step)."""
    shape = (batch, model.num_images, loss.pairs_per_latent)
    noise_shape = (*shape, model.latent_tokens, model.latent_channels)
    return LossDraws(
        jax.random.bernoulli(rng.key(seed, rng.LABEL_DROPOUT, step), model.label_dropout, (batch,)),
        draw_training_timesteps(rng.key(seed, rng.TIMESTEPS, step), shape),
        jax.random.normal(rng.key(seed, rng.NOISE, step), noise_shape),
    )


class Losses(NamedTuple):
    """Terms of the training loss, float32."""

    flow: Float[Array, "b images pairs"]  # mean squared error of each pair's velocity
    similarity: Float[Array, ""]  # mean cosine similarity of the encoder's tokens (the semantic diversity term)


def semantic_similarity(encoded: Float[Array, "b tokens width"]) -> Float[Array, ""]:
    """Mean cosine similarity over all ordered pairs of a row's tokens, self-pairs included."""
    encoded = encoded.astype(jnp.float32)
    directions = encoded / jnp.linalg.norm(encoded, axis=-1, keepdims=True)
    # The mean over all pairs of inner products is the squared norm of the mean direction.
    return jnp.mean(jnp.sum(jnp.mean(directions, axis=1) ** 2, axis=-1))


def flow_matching_losses(
    model: TransDiff,
    params: Params,
    latents: Float[Array, "b images h w c"],
    labels: Int[Array, " b"],
    draws: LossDraws,
    *,
    dropout_key: Key[Array, ""] | None = None,
    freeze_encoder: bool = False,
) -> Losses:
    """The joint loss of both networks (paper, equations 3 to 6).

    Args:
        model: both networks.
        params: their parameters.
        latents: images of one class in each row, in the order of their sequence.
        labels: the class of each row.
        draws: times, noise and dropped labels.
        dropout_key: None turns dropout off.
        freeze_encoder: the encoder has no dropout and gets no gradient. Labels still drop, because guidance needs a
            decoder that has learned the null class.

    Raises:
        ValueError: the shape of `latents` does not fit the configuration and the labels.
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
    latents: Float[Array, "b images h w c"],
    labels: Int[Array, " b"],
    null: Bool[Array, " b"],
    rngs: Rngs,
    frozen: bool,
) -> Semantics:
    references = latents[:, :-1] if model.config.num_images > 1 else None
    semantics = applied(model, params, TransDiff.encode, {} if frozen else rngs)(labels, null, references)
    return jax.lax.stop_gradient(semantics) if frozen else semantics


def _velocity(
    model: TransDiff,
    params: Params,
    features: Float[Array, "b semantic_tokens width"],
    latents: Float[Array, "b images h w c"],
    draws: LossDraws,
    rngs: Rngs,
) -> Float[Array, "b images pairs tokens c"]:
    """Velocity at every (time, noise) pair."""
    c = model.config
    batch, images, pairs = draws.timesteps.shape
    t = (draws.timesteps / NUM_TIMESTEPS)[..., None, None]
    x_t = interpolate(latent_to_tokens(latents)[:, :, None], draws.noise, t)
    velocity = applied(model, params, TransDiff.velocity, rngs)(
        x_t.reshape(batch, images * pairs, c.latent_tokens, c.latent_channels),
        draws.timesteps.reshape(batch, images * pairs),
        applied(model, params, TransDiff.condition)(features),
        visible_features(c, pairs),
    )
    return velocity.reshape(draws.noise.shape)


def visible_features(config: ModelConfig, pairs: int) -> Bool[np.ndarray, "inputs semantic_tokens"] | None:
    """Which semantic tokens each decoder input of a row sees: an input of image k sees those of groups 0..k.

    Returns:
        A row for each pair of each image, image-major; None if all inputs see all tokens.
    """
    if config.num_images == 1:
        return None
    image = np.repeat(np.arange(config.num_images), pairs)
    group = np.repeat(np.arange(config.num_images), config.tokens_per_image)
    return image[:, None] >= group[None, :]


def _dropout_rngs(key: Key[Array, ""] | None) -> tuple[Rngs, Rngs]:
    """Of the encoder and of the decoder."""
    if key is None:
        return {}, {}
    encoder, decoder = jax.random.split(key)
    return {"dropout": encoder}, {"dropout": decoder}
