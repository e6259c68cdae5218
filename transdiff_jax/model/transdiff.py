"""TransDiff: the semantic encoder and the diffusion decoder, joined and trained by one flow-matching loss."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from transdiff_jax import rng
from transdiff_jax.config import LossConfig, ModelConfig
from transdiff_jax.flow.path import interpolate, velocity_target
from transdiff_jax.flow.timesteps import NUM_TIMESTEPS, draw_training_timesteps
from transdiff_jax.model.decoder import TimeCondition, VelocityDecoder
from transdiff_jax.model.encoder import Prefix, SemanticEncoder, Semantics
from transdiff_jax.nn.attention import GuidedPair, KeysValues

Array = jax.Array
Params = dict


class TransDiff(nn.Module):
    """The joint model. Dropout is on where a "dropout" key is supplied to `apply`."""

    config: ModelConfig
    unroll: bool = False  # layers written out instead of scanned: same parameters, same numbers

    def setup(self) -> None:
        self.encoder = SemanticEncoder(self.config, self.unroll)
        self.decoder = VelocityDecoder(self.config, self.unroll)

    def encode(self, labels: Array, null: Array, references: Array | None = None) -> Semantics:
        """Semantic features of a class and earlier images; see `SemanticEncoder`."""
        return self.encoder(labels, null, references)

    def start(self, labels: Array, null: Array) -> Prefix:
        """What depends on the class alone; see `SemanticEncoder.start`."""
        return self.encoder.start(labels, null)

    def extend(self, image: Array, cache: KeysValues) -> Prefix:
        """One more image's group; see `SemanticEncoder.extend`."""
        return self.encoder.extend(image, cache)

    def condition(self, features: Array) -> KeysValues:
        """Semantic features -> what the velocity needs of them; see `VelocityDecoder.condition`."""
        return self.decoder.condition(features)

    def velocity(
        self, x_t: Array, timesteps: Array, keys_values: KeysValues, visible: np.ndarray | None = None
    ) -> Array:
        """Velocity of noisy latents under a condition; see `VelocityDecoder`."""
        return self.decoder(x_t, timesteps, keys_values, visible)

    def embed_times(self, timesteps: Array) -> TimeCondition:
        """What the velocity needs of times; see `VelocityDecoder.embed_times`."""
        return self.decoder.embed_times(timesteps)

    def velocity_at(self, x_t: Array, time: TimeCondition, keys_values: KeysValues | GuidedPair) -> Array:
        """Velocity of a sampler's step; see `VelocityDecoder.velocity_at`."""
        return self.decoder.velocity_at(x_t, time, keys_values)

    def __call__(self, labels: Array, null: Array, references: Array | None, x_t: Array, timesteps: Array) -> Array:
        """Features, then velocity: touches every parameter, for `init`."""
        features = self.encode(labels, null, references).features
        return self.velocity(x_t, timesteps, self.condition(features))


def init_params(config: ModelConfig, seed: int) -> Params:
    """Fresh float32 parameters, boxed with their logical axis names (`flax.linen.unbox` takes the boxes off)."""
    grid = (config.latent_size, config.latent_size, config.latent_channels)
    references = jnp.zeros((1, config.num_images - 1, *grid)) if config.num_images > 1 else None
    x_t = jnp.zeros((1, 1, config.latent_tokens, config.latent_channels))
    labels, null = jnp.zeros(1, jnp.int32), jnp.zeros(1, bool)
    model = TransDiff(config)
    return model.init(rng.key(seed, rng.PARAMS), labels, null, references, x_t, jnp.zeros((1, 1)))["params"]


def latent_to_tokens(latents: Array) -> Array:
    """[..., h, w, c] -> [..., h * w, c], row-major."""
    *lead, height, width, channels = latents.shape
    return latents.reshape(*lead, height * width, channels)


def tokens_to_latent(tokens: Array, size: int) -> Array:
    """[..., size * size, c] -> [..., size, size, c]."""
    *lead, _, channels = tokens.shape
    return tokens.reshape(*lead, size, size, channels)


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
    variables = {"params": params}
    encoder_rngs, decoder_rngs = _dropout_rngs(dropout_key)
    references = latents[:, :-1] if c.num_images > 1 else None
    if freeze_encoder:
        null = jnp.zeros_like(draws.null)
        semantics = jax.lax.stop_gradient(model.apply(variables, labels, null, references, method="encode"))
    else:
        semantics = model.apply(variables, labels, draws.null, references, method="encode", rngs=encoder_rngs)

    batch, images, pairs = draws.timesteps.shape
    flat = (batch, images * pairs, c.latent_tokens, c.latent_channels)
    x = latent_to_tokens(latents)[:, :, None]
    t = (draws.timesteps / NUM_TIMESTEPS)[..., None, None]
    x_t = interpolate(x, draws.noise, t).reshape(flat)
    keys_values = model.apply(variables, semantics.features, method="condition")
    velocity = model.apply(
        variables,
        x_t,
        draws.timesteps.reshape(flat[:2]),
        keys_values,
        visible_features(c, pairs),
        method="velocity",
        rngs=decoder_rngs,
    )
    error = velocity.reshape(draws.noise.shape) - velocity_target(x, draws.noise)
    return Losses(jnp.mean(error**2, axis=(-2, -1)), semantic_similarity(semantics.encoded))


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
