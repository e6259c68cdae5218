"""What the rest of the package asks of a tokenizer."""

from typing import Protocol

import jax

Array = jax.Array


class Tokenizer(Protocol):
    """Image <-> latent, pure functions of arrays that may be traced.

    A pytree whose leaves are its weights: jitted functions take it as an argument, since weights that they close over
    would be compiled in as constants.
    """

    def encode(self, images: Array, key: Array) -> Array:
        """Images [..., height, width, channels] in [-1, 1] -> latents [..., h, w, c]; `key` draws from a posterior."""

    def decode(self, latents: Array) -> Array:
        """Latents [..., h, w, c] -> images [..., height, width, channels], about [-1, 1], not clipped."""
