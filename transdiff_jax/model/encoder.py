"""The semantic encoder: the autoregressive Transformer that turns a class, and earlier images, into features."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Float32, Int

from transdiff_jax.config import ModelConfig
from transdiff_jax.nn.attention import KeysValues, SelfAttention, block_causal_mask
from transdiff_jax.nn.layers import Mlp, constrain_tokens, dense, embedding_init, layer_norm, with_axes
from transdiff_jax.nn.patches import patchify
from transdiff_jax.nn.stack import stack
from transdiff_jax.parallel import axes


class Semantics(NamedTuple):
    """Output of the encoder for all groups of a sequence."""

    # z: the condition of the decoder, with its position embedding, in the compute dtype
    features: Float[Array, "b tokens width"]
    encoded: Float32[Array, "b tokens width"]  # without that embedding: what the diversity term measures


class Prefix(NamedTuple):
    """The sequence so far: what the decoder and the next group need."""

    features: Float[Array, "b tokens width"]  # z of the newest group
    cache: KeysValues | None  # of all tokens in every block, [blocks, b, tokens, heads, head_dim]; None with one image


class EncoderBlock(nn.Module):
    """Pre-norm Transformer block."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x: Float32[Array, "b tokens width"],
        mask: Bool[Array | np.ndarray, "tokens all_tokens"] | None,
        earlier: KeysValues | None,
    ) -> tuple[Float32[Array, "b tokens width"], KeysValues | None]:
        """One block.

        Args:
            x: the tokens.
            mask: True where a token may attend to an earlier token or one of these; None for everywhere.
            earlier: keys and values of the tokens before these in this block; None if nothing is cached.

        Returns:
            The tokens, and the keys and values of all tokens if `earlier` was given.
        """
        c = self.config
        dtype = jnp.dtype(c.dtype)
        attention = SelfAttention(c.heads, c.weight_dropout, c.dropout, dtype, c.attention, name="attention")
        x = constrain_tokens(x)
        normed, cache = layer_norm(name="attention_norm")(x), None
        if earlier is None:
            x = x + attention(normed, mask)
        else:
            attended, cache = attention.extend(normed, earlier, mask)
            x = x + attended
        x = x + Mlp(c.width, c.dropout, dtype, name="mlp")(layer_norm(name="mlp_norm")(x))
        return x, cache


class SemanticEncoder(nn.Module):
    """Class tokens, mask tokens and earlier images -> semantic features (paper, sections 3.1 and 3.3).

    The sequence is the class vector repeated `class_tokens` times, then one group of `tokens_per_image` tokens for
    each image: group 0 holds learned mask vectors, group k > 0 the latent of image k - 1. With one image attention
    is full; with several it is block causal over (class, group 0, group 1, ...), so the features of a group do not
    depend on whether later groups exist.
    """

    config: ModelConfig

    def setup(self) -> None:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        tokens = c.semantic_tokens
        tables, vector = (axes.POSITIONS, axes.EMBED), (axes.EMBED,)
        classes = with_axes(embedding_init, axes.CLASSES, axes.EMBED)
        positions = with_axes(embedding_init, *tables)
        self.class_embedding = self.param("class_embedding", classes, (c.num_classes, c.width))
        self.null_class = self.param("null_class", with_axes(embedding_init, *vector), (c.width,))
        self.mask_embedding = self.param("mask_embedding", positions, (c.mask_tokens, c.width))
        self.position_embedding = self.param("position_embedding", positions, (c.class_tokens + tokens, c.width))
        self.output_position_embedding = self.param("output_position_embedding", positions, (tokens, c.width))
        if c.num_images > 1:
            self.reference_projection = dense(c.width, (axes.LATENT, axes.EMBED), dtype)
        self.input_norm = layer_norm()
        self.output_norm = layer_norm()
        blocks = stack(EncoderBlock, c.encoder_blocks, in_axes=(nn.broadcast, 0), remat=c.remat)
        self.blocks = blocks(c)

    def __call__(
        self,
        labels: Int[Array, " b"],
        null: Bool[Array, " b"],
        references: Float[Array, "b images h w c"] | None = None,
    ) -> Semantics:
        """Features of one more group than there are earlier images.

        Args:
            labels: classes in [0, num_classes).
            null: True where the null class replaces the label.
            references: latents of the earlier images, fewer than num_images; None for none.

        Raises:
            ValueError: the shapes do not fit each other or the configuration.
        """
        self._check(labels, null, references)
        x = self._embed_class(labels, null)
        if references is not None:
            x = jnp.concatenate([x, self._embed_references(references)], axis=1)
        return self._transform(x, 0, self._mask(x.shape[1]), None)[0]

    def start(self, labels: Int[Array, " b"], null: Bool[Array, " b"]) -> Prefix:
        """The part of a sequence that depends on the class alone: class tokens and group 0.

        Args:
            labels: classes in [0, num_classes).
            null: True where the null class replaces the label.
        """
        c = self.config
        self._check(labels, null, None)
        x, empty = self._embed_class(labels, null), None
        if c.num_images > 1:
            nothing = jnp.zeros((c.encoder_blocks, len(x), 0, c.heads, c.width // c.heads), jnp.dtype(c.dtype))
            empty = KeysValues(nothing, nothing)
        semantics, cache = self._transform(x, 0, self._mask(x.shape[1]), empty)
        return Prefix(semantics.features, cache)

    def extend(self, image: Float[Array, "b h w c"], cache: KeysValues | None) -> Prefix:
        """One more group; attention is block causal, so the tokens before it stay as they are in `cache`.

        Args:
            image: latent of the image before the group.
            cache: from `start` or from the last `extend`.

        Raises:
            ValueError: there is no cache, because the model has one image.
        """
        if cache is None:
            raise ValueError("a model of one image has no cache to extend: use a model of several images")
        # A group sees itself and everything before it: no mask.
        semantics, extended = self._transform(self._embed_references(image[:, None]), cache.key.shape[2], None, cache)
        return Prefix(semantics.features, extended)

    def _embed_class(self, labels: Int[Array, " b"], null: Bool[Array, " b"]) -> Float32[Array, "b tokens width"]:
        """Class tokens and group 0, without position embedding."""
        c = self.config
        vector = jnp.where(null[:, None], self.null_class, self.class_embedding[labels])
        class_tokens = jnp.broadcast_to(vector[:, None], (len(labels), c.class_tokens, c.width))
        mask_tokens = jnp.broadcast_to(self.mask_embedding, (len(labels), c.tokens_per_image, c.width))
        return jnp.concatenate([class_tokens, mask_tokens], axis=1)

    def _transform(
        self,
        x: Float32[Array, "b tokens width"],
        first: int,
        mask: Bool[np.ndarray, "tokens tokens"] | None,
        earlier: KeysValues | None,
    ) -> tuple[Semantics, KeysValues | None]:
        """Runs tokens from position `first` on through all blocks; drops class tokens at the end."""
        c = self.config
        last = first + x.shape[1]
        x = self.input_norm(x + self.position_embedding[first:last])
        x, cache = self.blocks(constrain_tokens(x), mask, earlier)
        x = constrain_tokens(x)
        first_image = max(first, c.class_tokens)
        encoded = self.output_norm(x)[:, first_image - first :]
        positions = self.output_position_embedding[first_image - c.class_tokens : last - c.class_tokens]
        return Semantics((encoded + positions).astype(jnp.dtype(c.dtype)), encoded), cache

    def _embed_references(self, references: Float[Array, "b images h w c"]) -> Float32[Array, "b tokens width"]:
        c = self.config
        batch, count = references.shape[:2]
        patches = patchify(references, c.reference_patch)
        tokens = self.reference_projection(patches).astype(jnp.float32)
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
