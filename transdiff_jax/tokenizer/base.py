"""The interface that every tokenizer implements."""

from typing import Protocol, runtime_checkable

from jax import Array
from jaxtyping import Float, Key


@runtime_checkable
class Tokenizer(Protocol):
    """Image <-> latent: pure functions of arrays that may be traced.

    A tokenizer is a pytree whose leaves are its weights. Jitted functions take it as an argument, because weights that
    they close over would be compiled in as constants.
    """

    def moments(self, images: Float[Array, "*lead height width channels"]) -> Float[Array, "*lead h w moments"]:
        """Images in [-1, 1] -> the moments that describe their posterior."""

    def mean(self, moments: Float[Array, "*lead h w moments"]) -> Float[Array, "*lead h w c"]:
        """The most likely latents, in float32."""

    def draw(self, moments: Float[Array, "*lead h w moments"], key: Key[Array, ""]) -> Float[Array, "*lead h w c"]:
        """A sample of the posterior in float32, from moments of any float dtype."""

    def decode(self, latents: Float[Array, "*lead h w c"]) -> Float[Array, "*lead height width channels"]:
        """Images of about [-1, 1], not clipped."""
