"""Tokenizers: between images in [-1, 1] and the latents that the model works on."""

from transdiff_jax.config import Config
from transdiff_jax.tokenizer.base import Tokenizer
from transdiff_jax.tokenizer.pixels import PixelTokenizer


def make_tokenizer(config: Config) -> Tokenizer:
    """The tokenizer that a configuration names."""
    return PixelTokenizer(config.tokenizer.patch)


__all__ = ["PixelTokenizer", "Tokenizer", "make_tokenizer"]
