"""The diffusion decoder: the velocity network, conditioned on semantic features by cross-attention."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Float32, Real

from transdiff_jax.config import ModelConfig
from transdiff_jax.model.step_weights import Weights, step_weights
from transdiff_jax.nn.attention import CrossAttention, CrossKeysValues, KeysValues, SelfAttention
from transdiff_jax.nn.layers import (
    Mlp,
    TimeEmbedding,
    constrain_tokens,
    dense,
    embedding_init,
    layer_norm,
    modulation_init,
    repeat_rows,
    with_axes,
)
from transdiff_jax.nn.modulation import add_gated, modulate
from transdiff_jax.nn.scalar_embedding import ScalarEmbedding
from transdiff_jax.nn.stack import stack
from transdiff_jax.parallel import axes


class TimeCondition(NamedTuple):
    """All modulation of the decoder, one row for each time."""

    blocks: Float32[Array, "rows blocks 6 width"]  # shift, scale and gate of attention, then of the MLP
    output: Float32[Array, "rows 2 width"]  # shift and scale of the final layer


class Jump(NamedTuple):
    """What a few-step student takes beside the time: how far a jump goes, and of which guided ODE."""

    length: Float[Array, "*rows"]  # t - r, in [0, 1]
    guidance: Float[Array, "*rows"]  # the guidance weight w


class DecoderBlock(nn.Module):
    """Self-attention and MLP under adaLN-single modulation, with an unmodulated cross-attention between them."""

    config: ModelConfig

    def setup(self) -> None:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        names = (axes.MODULATION, axes.EMBED)
        self.modulation = self.param("modulation", with_axes(modulation_init, *names), (6, c.width))
        self.attention_norm = layer_norm()
        self.attention = SelfAttention(c.heads, c.weight_dropout, c.dropout, dtype, c.attention)
        self.cross_norm = layer_norm()
        self.cross_attention = CrossAttention(c.heads, c.weight_dropout, c.dropout, dtype, c.attention)
        self.mlp_norm = layer_norm()
        self.mlp = Mlp(c.width, c.dropout, dtype)

    def __call__(
        self,
        x: Float32[Array, "rows tokens width"],
        keys_values: KeysValues,
        shared: Float[Array, "rows 6 width"],
        mask: Bool[Array | np.ndarray, "queries semantic_tokens"] | None,
    ) -> tuple[Float32[Array, "rows tokens width"], None]:
        """One block.

        Args:
            x: tokens of the same number of inputs for each of b conditions; the inputs of one condition are adjacent.
            keys_values: of the b conditions.
            shared: the part of the modulation that all blocks share.
            mask: True where a token of a condition's inputs may attend; None for everywhere.
        """
        modulation = self.modulation + shared
        return self.after_attention(self.self_attention(x, modulation), keys_values, modulation, mask), None

    def self_attention(
        self, x: Float32[Array, "b tokens width"], modulation: Float32[Array, "rows 6 width"]
    ) -> Float32[Array, "b tokens width"]:
        """Self-attention, which does not see the condition; one row of modulation may serve all of `x`."""
        shift, scale, gate = jnp.unstack(modulation, axis=1)[:3]
        x = constrain_tokens(x)
        return add_gated(x, gate, self.attention(modulate(self.attention_norm(x), shift, scale)))

    def after_attention(
        self,
        x: Float32[Array, "b tokens width"],
        keys_values: KeysValues,
        modulation: Float32[Array, "rows 6 width"],
        mask: Bool[Array | np.ndarray, "queries semantic_tokens"] | None = None,
    ) -> Float32[Array, "more_rows tokens width"]:
        """Cross-attention and MLP, for more rows if there are more conditions than rows (see `CrossAttention`)."""
        shift, scale, gate = jnp.unstack(modulation, axis=1)[3:]
        x = constrain_tokens(x)
        attended = self.cross_attention(self.cross_norm(x), keys_values, mask)
        x = repeat_rows(x, len(attended)) + attended
        return add_gated(x, gate, self.mlp(modulate(self.mlp_norm(x), shift, scale)))


class VelocityDecoder(nn.Module):
    """x_t, t and semantic features -> velocity (paper, section 3.2)."""

    config: ModelConfig

    def setup(self) -> None:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        positions = with_axes(embedding_init, axes.POSITIONS, axes.EMBED)
        table = with_axes(modulation_init, axes.MODULATION, axes.EMBED)
        self.input_projection = dense(c.width, (axes.LATENT, axes.EMBED), dtype)
        self.position_embedding = self.param("position_embedding", positions, (c.latent_tokens, c.width))
        self.time_embedding = TimeEmbedding(c.width, dtype)
        if c.flow_map:
            self.length_embedding = ScalarEmbedding(c.width, dtype)
            self.guidance_embedding = ScalarEmbedding(c.width, dtype)
        self.condition_projection = dense(c.width, (axes.EMBED, axes.CONDITION), dtype)
        self.keys_values = nn.vmap(
            CrossKeysValues,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            axis_size=c.decoder_blocks,
            metadata_params={nn.PARTITION_NAME: axes.LAYERS},
        )(c.heads, dtype)
        in_axes = (0, nn.broadcast, nn.broadcast)
        blocks = stack(DecoderBlock, c.decoder_blocks, in_axes=in_axes, remat=c.remat)
        self.blocks = blocks(c)
        self.output_norm = layer_norm(affine=False)
        self.output_modulation = self.param("output_modulation", table, (2, c.width))
        zeros = nn.initializers.zeros
        self.output_projection = dense(c.latent_channels, (axes.EMBED, axes.LATENT), jnp.float32, kernel_init=zeros)

    def condition(self, features: Float[Array, "b tokens width"]) -> KeysValues:
        """Keys and values of every block from semantic features, [blocks, b, tokens, heads, head_dim].

        They do not depend on time or noise: one call serves all steps of a sampler and all noise pairs of a loss.
        """
        return self.keys_values(constrain_tokens(self.condition_projection(constrain_tokens(features))))

    def __call__(
        self,
        x_t: Float[Array, "b inputs tokens c"],
        timesteps: Real[Array, "b inputs"],
        keys_values: KeysValues,
        visible: Bool[np.ndarray, "inputs semantic_tokens"] | None = None,
        jump: Jump | None = None,
    ) -> Float32[Array, "b inputs tokens c"]:
        """The velocity at several noisy latents (inputs) for each of b conditions; a student's is that of a jump.

        Args:
            x_t: the noisy latents.
            timesteps: their times in [0, 1000].
            keys_values: from `condition`.
            visible: which features each input may see; None for all.
            jump: for a student, [b, inputs].

        Raises:
            ValueError: the shapes do not fit each other or the configuration.
        """
        c = self.config
        self._check(x_t, timesteps, keys_values, visible)
        conditions, inputs, tokens, _ = x_t.shape
        rows = conditions * inputs
        more = self._embed_jump(None if jump is None else Jump(*(values.reshape(rows) for values in jump)))
        embedding, shared = self.time_embedding(timesteps.reshape(rows), axes.BATCH, more)
        mask = None if visible is None else np.repeat(visible, tokens, axis=0)
        x = self._embed(x_t.reshape(rows, tokens, c.latent_channels))
        x, _ = self.blocks(x, keys_values, shared, mask)
        return self._project(x, self._output_table(embedding)).reshape(x_t.shape)

    def embed_times(self, timesteps: Real[Array, " rows"], jump: Jump | None = None) -> TimeCondition:
        """All modulation at times in [0, 1000] (and, for a student, of jumps), for all steps of a sampler at once."""
        # A table: whole on every device.
        embedding, shared = self.time_embedding(timesteps, None, self._embed_jump(jump))
        tables = self.blocks.variables["params"]["modulation"]
        return TimeCondition(tables + shared[:, None], self._output_table(embedding))

    def step_weights(self) -> Weights:
        """The parameters for `velocity_at`; see `step_weights`."""
        return step_weights(self.variables["params"], jnp.dtype(self.config.dtype))

    def velocity_at(
        self, x_t: Float[Array, "b tokens c"], time: TimeCondition, keys_values: tuple[KeysValues, ...]
    ) -> Float32[Array, "rows tokens c"]:
        """The velocity in a sampler's step: all rows share one time, and the halves of a guided pair share one x.

        The parameters must be those of `step_weights`. The halves share everything before the first cross-attention.
        The layers are written out, so that a solver's loop holds no other loop and slices no weights.

        Args:
            x_t: noisy latents.
            time: a single row.
            keys_values: of each block, for b rows, or for 2b, interleaved (conditional, unconditional).

        Returns:
            A row for each row of keys and values.
        """
        x, blocks = self._embed(x_t), self.variables["params"]["blocks"]
        for index, layer in enumerate(keys_values):
            block = DecoderBlock(self.config, parent=None).bind({"params": blocks[str(index)]})
            modulation = time.blocks[:, index]
            x = block.after_attention(block.self_attention(x, modulation), layer, modulation)
        return self._project(x, time.output)

    def _embed_jump(self, jump: Jump | None) -> Float[Array, "rows width"] | None:
        """What a student adds to the embedding of the time; zero before it is trained.

        Raises:
            ValueError: a student has no jump, or another decoder has one.
        """
        if (jump is not None) != self.config.flow_map:
            raise ValueError(f"a jump goes with model.flow_map=True alone, which is {self.config.flow_map}")
        if jump is None:
            return None
        return self.length_embedding(jump.length) + self.guidance_embedding((jump.guidance - 1) / 2)

    def _embed(self, x_t: Float[Array, "rows tokens c"]) -> Float32[Array, "rows tokens width"]:
        return constrain_tokens(self.input_projection(constrain_tokens(x_t))) + self.position_embedding

    def _output_table(self, embedding: Float[Array, "rows width"]) -> Float32[Array, "rows 2 width"]:
        """Shift and scale of the final layer, from the time embedding."""
        return self.output_modulation + embedding[:, None]

    def _project(
        self, x: Float32[Array, "b tokens width"], table: Float32[Array, "rows 2 width"]
    ) -> Float32[Array, "b tokens c"]:
        """The final layer, which gives the velocity; one row of the table may serve all of `x`."""
        x = modulate(self.output_norm(constrain_tokens(x)), table[:, 0], table[:, 1])
        return constrain_tokens(self.output_projection(x))

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
