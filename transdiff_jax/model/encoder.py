"""The semantic encoder: the autoregressive Transformer that turns a class, and earlier images, into features."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from transdiff_jax import sharding
from transdiff_jax.config import ModelConfig
from transdiff_jax.nn.attention import SelfAttention, block_causal_mask
from transdiff_jax.nn.layers import Mlp, dense, embedding_init, layer_norm, with_axes
from transdiff_jax.nn.patches import patchify
from transdiff_jax.nn.stack import stack

Array = jax.Array


class Semantics(NamedTuple):
    """Output of the encoder, both [b, groups * tokens_per_image, width]."""

    features: Array  # z: what the decoder is conditioned on (with its position embedding)
    encoded: Array  # before that embedding: what the semantic diversity is measured on


class EncoderBlock(nn.Module):
    """Pre-norm Transformer block."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array, mask: Array | None) -> tuple[Array, None]:
        """[b, tokens, width] -> the same (and None: the block has no output beside its carry)."""
        c = self.config
        dtype = jnp.dtype(c.dtype)
        attention = SelfAttention(c.heads, c.dropout, dtype, name="attention")
        x = x + attention(layer_norm(dtype, name="attention_norm")(x), mask)
        x = x + Mlp(c.width, c.dropout, dtype, name="mlp")(layer_norm(dtype, name="mlp_norm")(x))
        return x, None


class SemanticEncoder(nn.Module):
    """Class tokens, mask tokens and earlier images -> semantic features (paper, sections 3.1 and 3.3).

    The sequence is the class vector repeated `class_tokens` times, then one group of `tokens_per_image` tokens for
    each image: group 0 holds learned mask vectors, group k > 0 the latent of image k - 1. With one image attention
    is full; with several it is block causal over (class, group 0, group 1, ...), so the features of the first
    groups do not depend on whether later ones are there.
    """

    config: ModelConfig
    unroll: bool = False

    def setup(self) -> None:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        tokens = c.semantic_tokens
        tables, vector = (sharding.POSITIONS, sharding.EMBED), (sharding.EMBED,)
        classes = with_axes(embedding_init, sharding.CLASSES, sharding.EMBED)
        positions = with_axes(embedding_init, *tables)
        self.class_embedding = self.param("class_embedding", classes, (c.num_classes, c.width))
        self.null_class = self.param("null_class", with_axes(embedding_init, *vector), (c.width,))
        self.mask_embedding = self.param("mask_embedding", positions, (c.mask_tokens, c.width))
        self.position_embedding = self.param("position_embedding", positions, (c.class_tokens + tokens, c.width))
        self.output_position_embedding = self.param("output_position_embedding", positions, (tokens, c.width))
        if c.num_images > 1:
            self.reference_projection = dense(c.width, (sharding.LATENT, sharding.EMBED), dtype)
        self.input_norm = layer_norm(dtype)
        self.output_norm = layer_norm(dtype)
        blocks = stack(EncoderBlock, c.encoder_blocks, in_axes=(nn.broadcast,), remat=c.remat, unroll=self.unroll)
        self.blocks = blocks(c)

    def __call__(self, labels: Array, null: Array, references: Array | None = None) -> Semantics:
        """Features of as many groups as there are earlier images, plus one.

        Args:
            labels: class indices [b] in [0, num_classes).
            null: [b], True where the null class replaces the label.
            references: latents of the earlier images [b, r, h, w, channels], r < num_images; None for none.

        Returns:
            Features of r + 1 groups in the compute dtype.

        Raises:
            ValueError: shapes that do not fit each other or the configuration.
        """
        c = self.config
        self._check(labels, null, references)
        batch, dtype = len(labels), jnp.dtype(c.dtype)
        vector = jnp.where(null[:, None], self.null_class, self.class_embedding[labels])
        class_tokens = jnp.broadcast_to(vector[:, None], (batch, c.class_tokens, c.width))
        mask_tokens = jnp.broadcast_to(self.mask_embedding, (batch, c.tokens_per_image, c.width))
        groups = [class_tokens.astype(dtype), mask_tokens.astype(dtype)]
        if references is not None:
            groups.append(self._embed_references(references))
        x = jnp.concatenate(groups, axis=1)
        x = self.input_norm(x + self.position_embedding[: x.shape[1]].astype(dtype))
        x, _ = self.blocks(x, self._mask(x.shape[1]))
        encoded = self.output_norm(x)[:, c.class_tokens :]
        return Semantics(encoded + self.output_position_embedding[: encoded.shape[1]].astype(dtype), encoded)

    def _embed_references(self, references: Array) -> Array:
        c = self.config
        batch, count = references.shape[:2]
        patches = patchify(references, c.reference_patch)
        tokens = self.reference_projection(patches.astype(jnp.dtype(c.dtype)))
        return tokens.reshape(batch, count * c.tokens_per_image, c.width)

    def _mask(self, length: int) -> np.ndarray | None:
        c = self.config
        if c.num_images == 1:
            return None
        groups = (length - c.class_tokens) // c.tokens_per_image
        return block_causal_mask((c.class_tokens, *[c.tokens_per_image] * groups))

    def _check(self, labels: Array, null: Array, references: Array | None) -> None:
        c = self.config
        if labels.ndim != 1 or null.shape != labels.shape:
            raise ValueError(f"labels and null must both be [b], got {labels.shape} and {null.shape}")
        if references is None:
            return
        expected = (len(labels), references.shape[1], c.latent_size, c.latent_size, c.latent_channels)
        if references.shape != expected or not 0 < references.shape[1] < c.num_images:
            raise ValueError(
                f"references must be {expected} with 1 to {c.num_images - 1} images, got {references.shape}"
            )
