"""The diffusion decoder: the velocity network, conditioned on semantic features by cross-attention."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from transdiff_jax import sharding
from transdiff_jax.config import ModelConfig
from transdiff_jax.nn.attention import CrossAttention, CrossKeysValues, KeysValues, SelfAttention
from transdiff_jax.nn.layers import (
    Mlp,
    TimeEmbedding,
    dense,
    embedding_init,
    layer_norm,
    modulate,
    modulation_init,
    with_axes,
)
from transdiff_jax.nn.stack import stack

Array = jax.Array


class DecoderBlock(nn.Module):
    """Self-attention and MLP under adaLN-single modulation, with an unmodulated cross-attention between them."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array, keys_values: KeysValues, modulation: Array, mask: Array | None) -> tuple[Array, None]:
        """One block.

        Args:
            x: [b * r, tokens, width]: r inputs for each of b conditions, those of one condition together.
            keys_values: of the condition, [b, semantic tokens, heads, head_dim].
            modulation: shared part [b * r, 6, width]: shift, scale and gate of attention, then of the MLP.
            mask: boolean [r * tokens, semantic tokens], or None.
        """
        c = self.config
        dtype = jnp.dtype(c.dtype)
        axes = (sharding.MODULATION, sharding.EMBED)
        table = self.param("modulation", with_axes(modulation_init, *axes), (6, c.width)).astype(dtype)
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.unstack(table + modulation, axis=1)

        normed = modulate(layer_norm(dtype, name="attention_norm")(x), shift1, scale1)
        x = x + gate1[:, None] * SelfAttention(c.heads, c.dropout, dtype, name="attention")(normed)

        # The r inputs of a condition attend to it as one long query: its keys and values are not repeated.
        rows, tokens, width = x.shape
        conditions = keys_values.key.shape[0]
        normed = layer_norm(dtype, name="cross_norm")(x).reshape(conditions, rows // conditions * tokens, width)
        attended = CrossAttention(c.heads, c.dropout, dtype, name="cross_attention")(normed, keys_values, mask)
        x = x + attended.reshape(rows, tokens, width)

        normed = modulate(layer_norm(dtype, name="mlp_norm")(x), shift2, scale2)
        return x + gate2[:, None] * Mlp(c.width, c.dropout, dtype, name="mlp")(normed), None


class VelocityDecoder(nn.Module):
    """x_t, t and semantic features -> velocity (paper, section 3.2)."""

    config: ModelConfig
    unroll: bool = False

    def setup(self) -> None:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        positions = with_axes(embedding_init, sharding.POSITIONS, sharding.EMBED)
        table = with_axes(modulation_init, sharding.MODULATION, sharding.EMBED)
        self.input_projection = dense(c.width, (sharding.LATENT, sharding.EMBED), dtype)
        self.position_embedding = self.param("position_embedding", positions, (c.latent_tokens, c.width))
        self.time_embedding = TimeEmbedding(c.width, dtype)
        self.condition_projection = dense(c.width, (sharding.EMBED, sharding.CONDITION), dtype)
        self.keys_values = nn.vmap(
            CrossKeysValues,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            axis_size=c.decoder_blocks,
            metadata_params={nn.PARTITION_NAME: sharding.LAYERS},
        )(c.heads, dtype)
        in_axes = (0, nn.broadcast, nn.broadcast)
        blocks = stack(DecoderBlock, c.decoder_blocks, in_axes=in_axes, remat=c.remat, unroll=self.unroll)
        self.blocks = blocks(c)
        self.output_norm = layer_norm(dtype, affine=False)
        self.output_modulation = self.param("output_modulation", table, (2, c.width))
        zeros = nn.initializers.zeros
        self.output_projection = dense(c.latent_channels, (sharding.EMBED, sharding.LATENT), dtype, kernel_init=zeros)

    def condition(self, features: Array) -> KeysValues:
        """Semantic features [b, tokens, width] -> keys and values of every block, [blocks, b, tokens, heads, head_dim].

        They do not depend on time or noise: one call serves all steps of a sampler and all noise pairs of a loss.
        """
        return self.keys_values(self.condition_projection(features))

    def __call__(
        self, x_t: Array, timesteps: Array, keys_values: KeysValues, visible: np.ndarray | None = None
    ) -> Array:
        """The velocity at r noisy latents for each of b conditions.

        Args:
            x_t: [b, r, latent tokens, channels].
            timesteps: [b, r] in [0, 1000].
            keys_values: from `condition`.
            visible: boolean [r, semantic tokens], which features each of the r inputs may see; None for all.

        Returns:
            Velocity shaped like `x_t`, float32.

        Raises:
            ValueError: shapes that do not fit each other or the configuration.
        """
        c = self.config
        self._check(x_t, timesteps, keys_values, visible)
        conditions, inputs, tokens, _ = x_t.shape
        rows, dtype = conditions * inputs, jnp.dtype(c.dtype)
        embedding, modulation = self.time_embedding(timesteps.reshape(rows))
        x = self.input_projection(x_t.reshape(rows, tokens, c.latent_channels).astype(dtype))
        x = x + self.position_embedding.astype(dtype)
        mask = None if visible is None else np.repeat(visible, tokens, axis=0)
        x, _ = self.blocks(x, keys_values, modulation, mask)
        table = self.output_modulation.astype(dtype) + embedding[:, None]
        x = self.output_projection(modulate(self.output_norm(x), table[:, 0], table[:, 1]))
        return x.astype(jnp.float32).reshape(x_t.shape)

    def _check(self, x_t: Array, timesteps: Array, keys_values: KeysValues, visible: np.ndarray | None) -> None:
        c = self.config
        if x_t.ndim != 4 or x_t.shape[2:] != (c.latent_tokens, c.latent_channels):
            raise ValueError(f"x_t must be [b, r, {c.latent_tokens}, {c.latent_channels}], got {x_t.shape}")
        if timesteps.shape != x_t.shape[:2]:
            raise ValueError(f"timesteps must be {x_t.shape[:2]} like x_t {x_t.shape}, got {timesteps.shape}")
        if keys_values.key.shape[:2] != (c.decoder_blocks, len(x_t)):
            raise ValueError(
                f"keys and values must be of {c.decoder_blocks} blocks and {len(x_t)} conditions like x_t "
                f"{x_t.shape}, got {keys_values.key.shape}"
            )
        expected = (x_t.shape[1], keys_values.key.shape[2])
        if visible is not None and visible.shape != expected:
            raise ValueError(f"visible must be {expected}, got {visible.shape}")
