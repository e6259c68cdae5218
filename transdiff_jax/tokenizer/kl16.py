"""KL-16: the latent-diffusion autoencoder (arXiv 2112.10752, appendix G) that makes TransDiff's latents.

It turns an image [h, w, 3] in [-1, 1] into a Gaussian over latents [h / 16, w / 16, 16]. The model works on a sample
times 0.2325, a factor that this tokenizer's `draw` and `decode` apply. The network is frozen: no dropout, no logical
axes.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Key

from transdiff_jax.nn.attention import KeysValues, attend
from transdiff_jax.storage.frozen_weights import FrozenParams
from transdiff_jax.tokenizer.slices import map_slices

LATENT_SCALE = 0.2325  # the release's; it brings latents to about unit variance
LOG_VARIANCE_RANGE = (-30.0, 20.0)
NORM_GROUPS = 32


@dataclasses.dataclass(frozen=True)
class Kl16Config:
    """Sizes of the autoencoder; the defaults are the published ones."""

    width: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)  # of the width, by level; each level but the last halves the side
    blocks: int = 2  # residual blocks of an encoder level; a decoder level has one more
    attention_levels: tuple[int, ...] = (4,)  # encoder levels with self-attention after each residual block
    latent_channels: int = 16
    image_channels: int = 3
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the computation; parameters and outputs are always float32

    @property
    def factor(self) -> int:
        """Side of the pixel square that becomes one latent position."""
        return 2 ** (len(self.multipliers) - 1)


class Posterior(NamedTuple):
    """A Gaussian over unscaled latents."""

    mean: Float[Array, "*lead c"]  # also its mode
    std: Float[Array, "*lead c"]


def posterior(moments: Float[Array, "*lead moments"]) -> Posterior:
    """The Gaussian that moments of any float dtype describe, in float32.

    Args:
        moments: along the last axis the means, then the log-variances.
    """
    mean, log_variance = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
    return Posterior(mean, jnp.exp(0.5 * jnp.clip(log_variance, *LOG_VARIANCE_RANGE)))


def draw_latents(moments: Float[Array, "*lead moments"], key: Key[Array, ""]) -> Float[Array, "*lead moments//2"]:
    """A sample of the posterior as the model's latents; cached moments need no weights."""
    mean, std = posterior(moments)
    return LATENT_SCALE * (mean + std * jax.random.normal(key, mean.shape))


def _conv(features: int, size: int, dtype: DTypeLike, name: str) -> nn.Conv:
    return nn.Conv(features, (size, size), padding=size // 2, dtype=dtype, name=name)


def _norm(dtype: DTypeLike, name: str) -> nn.GroupNorm:
    return nn.GroupNorm(NORM_GROUPS, epsilon=1e-6, dtype=dtype, use_fast_variance=False, name=name)


class ResidualBlock(nn.Module):
    """Norm, swish and convolution, twice, beside a shortcut."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w features"]:
        h = _conv(self.features, 3, self.dtype, "conv1")(nn.swish(_norm(self.dtype, "norm1")(x)))
        h = _conv(self.features, 3, self.dtype, "conv2")(nn.swish(_norm(self.dtype, "norm2")(h)))
        if x.shape[-1] != self.features:
            x = _conv(self.features, 1, self.dtype, "shortcut")(x)
        return x + h


class AttentionBlock(nn.Module):
    """Single-head self-attention over all positions."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        batch, height, width, channels = x.shape
        normed = _norm(self.dtype, "norm")(x)
        tokens = (batch, height * width, 1, channels)
        query, key, value = (
            _conv(channels, 1, self.dtype, name)(normed).reshape(tokens) for name in ("query", "key", "value")
        )
        attended = attend(query, KeysValues(key, value)).reshape(x.shape)
        return x + _conv(channels, 1, self.dtype, "output")(attended)


class _Middle(nn.Module):
    """The part between the levels and the latent; both halves have one."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        channels = x.shape[-1]
        x = ResidualBlock(channels, self.dtype, name="block1")(x)
        x = AttentionBlock(self.dtype, name="attention")(x)
        return ResidualBlock(channels, self.dtype, name="block2")(x)


class Encoder(nn.Module):
    """Images -> moments, before `quant_conv`."""

    config: Kl16Config

    @nn.compact
    def __call__(self, x: Float[Array, "b height width channels"]) -> Float[Array, "b h w moments"]:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        x = _conv(c.width, 3, dtype, "conv_in")(x.astype(dtype))
        for level, multiplier in enumerate(c.multipliers):
            for block in range(c.blocks):
                x = ResidualBlock(c.width * multiplier, dtype, name=f"level{level}_block{block}")(x)
                if level in c.attention_levels:
                    x = AttentionBlock(dtype, name=f"level{level}_attention{block}")(x)
            if level < len(c.multipliers) - 1:
                # The release pads only at the bottom and right; "SAME" and a padding of 1 do not.
                down = nn.Conv(
                    x.shape[-1], (3, 3), 2, padding=((0, 1), (0, 1)), dtype=dtype, name=f"level{level}_downsample"
                )
                x = down(x)
        x = nn.swish(_norm(dtype, "norm_out")(_Middle(dtype, name="middle")(x)))
        return _conv(2 * c.latent_channels, 3, dtype, "conv_out")(x)


class Decoder(nn.Module):
    """Latents (after `post_quant_conv`) -> images."""

    config: Kl16Config

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b height width channels"]:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        x = _conv(c.width * c.multipliers[-1], 3, dtype, "conv_in")(x)
        x = _Middle(dtype, name="middle")(x)
        for level, multiplier in reversed(list(enumerate(c.multipliers))):
            for block in range(c.blocks + 1):
                x = ResidualBlock(c.width * multiplier, dtype, name=f"level{level}_block{block}")(x)
            if level > 0:
                x = x.repeat(2, axis=1).repeat(2, axis=2)
                x = _conv(x.shape[-1], 3, dtype, f"level{level}_upsample")(x)
        return _conv(c.image_channels, 3, dtype, "conv_out")(nn.swish(_norm(dtype, "norm_out")(x)))


class Kl16Autoencoder(nn.Module):
    """Both halves, with unscaled latents."""

    config: Kl16Config

    def setup(self) -> None:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        self.encoder, self.decoder = Encoder(c), Decoder(c)
        self.quant_conv = nn.Conv(2 * c.latent_channels, (1, 1), dtype=dtype)
        self.post_quant_conv = nn.Conv(c.latent_channels, (1, 1), dtype=dtype)

    def moments(self, images: Float[Array, "b height width channels"]) -> Float[Array, "b h w moments"]:
        """Images in [-1, 1] -> means, then log-variances, in float32.

        Raises:
            ValueError: the sides are not multiples of the factor, or the channels are not the configured ones.
        """
        c = self.config
        height, width, channels = images.shape[1:]
        if height % c.factor or width % c.factor or channels != c.image_channels:
            raise ValueError(
                f"images must have sides that are multiples of {c.factor} and {c.image_channels} channels, got "
                f"{images.shape}"
            )
        return self.quant_conv(self.encoder(images)).astype(jnp.float32)

    def decode(self, latents: Float[Array, "b h w c"]) -> Float[Array, "b height width channels"]:
        """Images in float32, not clipped."""
        return self.decoder(self.post_quant_conv(latents)).astype(jnp.float32)

    def __call__(self, images: Float[Array, "b height width channels"]) -> Float[Array, "b height width channels"]:
        """Reconstructs from the mode. It touches every parameter, for `init`."""
        return self.decode(posterior(self.moments(images)).mean)


@struct.dataclass
class Kl16Tokenizer:
    """The autoencoder with its weights, as a tokenizer.

    A pytree: pass it to a jitted function as an argument, so that its weights are not compiled in as constants.
    """

    params: FrozenParams
    config: Kl16Config = struct.field(pytree_node=False, default=Kl16Config())
    slice_size: int = struct.field(pytree_node=False, default=32)  # images of a device at once: bounds the memory

    def moments(self, images: Float[Array, "*lead height width channels"]) -> Float[Array, "*lead h w moments"]:
        """Images in [-1, 1] -> unscaled moments: means, then log-variances."""
        return self._apply(Kl16Autoencoder.moments, images)

    def mean(self, moments: Float[Array, "*lead h w moments"]) -> Float[Array, "*lead h w moments//2"]:
        """The mean of the posterior, scaled."""
        return LATENT_SCALE * posterior(moments).mean

    def draw(
        self, moments: Float[Array, "*lead h w moments"], key: Key[Array, ""]
    ) -> Float[Array, "*lead h w moments//2"]:
        """A sample of the posterior, scaled."""
        return draw_latents(moments, key)

    def decode(self, latents: Float[Array, "*lead h w c"]) -> Float[Array, "*lead height width channels"]:
        """Scaled latents -> images, not clipped."""
        return self._apply(Kl16Autoencoder.decode, latents / LATENT_SCALE)

    def _apply(
        self, method: Callable[[Kl16Autoencoder, Array], Array], x: Float[Array, "*lead rows columns features"]
    ) -> Float[Array, "*lead out_rows out_columns out_features"]:
        *lead, height, width, channels = x.shape
        rows = x.reshape(math.prod(lead), height, width, channels)
        network = nn.apply(method, Kl16Autoencoder(self.config))
        out = map_slices(lambda part: network({"params": self.params}, part), rows, self.slice_size)
        return out.reshape(*lead, *out.shape[1:])
