"""TransDiff: the semantic encoder and the diffusion decoder, joined and trained by one flow-matching loss."""

import flax.linen as nn
import jax
import numpy as np

from transdiff_jax.config import ModelConfig
from transdiff_jax.model.decoder import TimeCondition, VelocityDecoder
from transdiff_jax.model.encoder import Prefix, SemanticEncoder, Semantics
from transdiff_jax.nn.attention import GuidedPair, KeysValues

Array = jax.Array


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
