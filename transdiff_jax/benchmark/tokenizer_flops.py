"""Floating-point operations of decoding one latent to pixels, counted by hand: two for each multiply-add."""

from transdiff_jax.config import Config
from transdiff_jax.tokenizer.kl16 import Kl16Config


def convolution_flops(side: int, kernel: int, inputs: int, outputs: int) -> int:
    """FLOPs of a convolution over a square, with a result of the same size."""
    return 2 * side**2 * kernel**2 * inputs * outputs


def residual_flops(side: int, inputs: int, outputs: int) -> int:
    """FLOPs of a residual block; its shortcut is a convolution only where the width changes."""
    shortcut = 0 if inputs == outputs else convolution_flops(side, 1, inputs, outputs)
    return convolution_flops(side, 3, inputs, outputs) + convolution_flops(side, 3, outputs, outputs) + shortcut


def attention_flops(side: int, channels: int) -> int:
    """FLOPs of self-attention over all positions, with its four projections."""
    return 4 * convolution_flops(side, 1, channels, channels) + 4 * side**4 * channels


def kl16_decode_flops(config: Kl16Config, latent_size: int) -> int:
    """FLOPs of KL-16's decoder for one latent, `post_quant_conv` included."""
    side, width = latent_size, config.width * config.multipliers[-1]
    total = convolution_flops(side, 1, config.latent_channels, config.latent_channels)
    total += convolution_flops(side, 3, config.latent_channels, width)
    total += 2 * residual_flops(side, width, width) + attention_flops(side, width)
    for level, multiplier in reversed(list(enumerate(config.multipliers))):
        for _ in range(config.blocks + 1):
            total += residual_flops(side, width, config.width * multiplier)
            width = config.width * multiplier
        if level > 0:
            side *= 2
            total += convolution_flops(side, 3, width, width)
    return total + convolution_flops(side, 3, width, config.image_channels)


def published_sizes(config: Config) -> Kl16Config:
    """KL-16 as published, for the latents and images of a configuration."""
    return Kl16Config(
        latent_channels=config.model.latent_channels,
        image_channels=config.data.image_channels,
        dtype=config.tokenizer.dtype,
    )


def decode_flops(config: Config) -> int:
    """FLOPs of decoding one image with the configured tokenizer; KL-16 has its published sizes."""
    if config.tokenizer.kind == "pixels":
        return 0  # it only moves pixels
    return kl16_decode_flops(published_sizes(config), config.model.latent_size)
