"""TransDiff: the semantic encoder and the diffusion decoder, joined and trained by one flow-matching loss."""

import flax.linen as nn
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Float32, Int, Real

from transdiff_jax.config import ModelConfig
from transdiff_jax.model.decoder import Jump, TimeCondition, VelocityDecoder
from transdiff_jax.model.encoder import Prefix, SemanticEncoder, Semantics
from transdiff_jax.model.step_weights import Weights
from transdiff_jax.nn.attention import KeysValues


class TransDiff(nn.Module):
    """The joint model. Dropout is on where a "dropout" key is supplied to `apply`."""

    config: ModelConfig

    def setup(self) -> None:
        self.encoder = SemanticEncoder(self.config)
        self.decoder = VelocityDecoder(self.config)

    def encode(
        self,
        labels: Int[Array, " b"],
        null: Bool[Array, " b"],
        references: Float[Array, "b images h w c"] | None = None,
    ) -> Semantics:
        """Semantic features of a class and earlier images; see `SemanticEncoder`."""
        return self.encoder(labels, null, references)

    def start(self, labels: Int[Array, " b"], null: Bool[Array, " b"]) -> Prefix:
        """The part of a sequence that depends on the class alone; see `SemanticEncoder.start`."""
        return self.encoder.start(labels, null)

    def extend(self, image: Float[Array, "b h w c"], cache: KeysValues | None) -> Prefix:
        """The group of one more image; see `SemanticEncoder.extend`."""
        return self.encoder.extend(image, cache)

    def condition(self, features: Float[Array, "b tokens width"]) -> KeysValues:
        """Keys and values of every decoder block from semantic features; see `VelocityDecoder.condition`."""
        return self.decoder.condition(features)

    def velocity(
        self,
        x_t: Float[Array, "b inputs tokens c"],
        timesteps: Real[Array, "b inputs"],
        keys_values: KeysValues,
        visible: Bool[np.ndarray, "inputs semantic_tokens"] | None = None,
        jump: Jump | None = None,
    ) -> Float32[Array, "b inputs tokens c"]:
        """Velocity at noisy latents under a condition; see `VelocityDecoder`."""
        return self.decoder(x_t, timesteps, keys_values, visible, jump)

    def embed_times(self, timesteps: Real[Array, " rows"], jump: Jump | None = None) -> TimeCondition:
        """All modulation of the decoder at some times; see `VelocityDecoder.embed_times`."""
        return self.decoder.embed_times(timesteps, jump)

    def step_weights(self) -> dict[str, Weights]:
        """The parameters for `velocity_at`; see `step_weights.step_weights`."""
        return {"decoder": self.decoder.step_weights()}

    def velocity_at(
        self, x_t: Float[Array, "b tokens c"], time: TimeCondition, keys_values: tuple[KeysValues, ...]
    ) -> Float32[Array, "rows tokens c"]:
        """Velocity in a sampler's step, with the parameters of `step_weights`; see `VelocityDecoder.velocity_at`."""
        return self.decoder.velocity_at(x_t, time, keys_values)

    def __call__(
        self,
        labels: Int[Array, " b"],
        null: Bool[Array, " b"],
        references: Float[Array, "b images h w c"] | None,
        x_t: Float[Array, "b inputs tokens c"],
        timesteps: Real[Array, "b inputs"],
    ) -> Float32[Array, "b inputs tokens c"]:
        """Features, then velocity: touches every parameter, for `init`."""
        features = self.encode(labels, null, references).features
        jump = Jump(timesteps, timesteps) if self.config.flow_map else None
        return self.velocity(x_t, timesteps, self.condition(features), jump=jump)
