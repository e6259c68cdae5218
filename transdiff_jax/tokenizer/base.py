"""What the rest of the package asks of a tokenizer."""

from typing import Protocol

import jax

Array = jax.Array


class Tokenizer(Protocol):
    """Image <-> latent, pure functions of arrays that may be traced.

    A pytree whose leaves are its weights: jitted functions take it as an argument, since weights that they close over
    would be compiled in as constants.
    """

    def moments(self, images: Array) -> Array:
        """Images [..., height, width, channels] in [-1, 1] -> what describes their posterior, [..., h, w, m]."""

    def mean(self, moments: Array) -> Array:
        """The most likely latents: moments [..., h, w, m] -> [..., h, w, c], float32."""

    def draw(self, moments: Array, key: Array) -> Array:
        """A sample of the posterior: moments [..., h, w, m], of any float dtype -> latents [..., h, w, c], float32."""

    def decode(self, latents: Array) -> Array:
        """Latents [..., h, w, c] -> images [..., height, width, channels], about [-1, 1], not clipped."""
