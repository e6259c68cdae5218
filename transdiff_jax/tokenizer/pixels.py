"""The tokenizer without a network: a square of pixels is one latent position."""

from flax import struct
from jax import Array
from jaxtyping import Float, Key

from transdiff_jax.nn.patches import patchify, unpatchify


@struct.dataclass
class PixelTokenizer:
    """Space to depth and back; exact, for images small enough to model directly."""

    patch: int = struct.field(pytree_node=False)

    def moments(self, images: Float[Array, "*lead height width channels"]) -> Float[Array, "*lead h w c"]:
        """One latent position for each square of `patch` x `patch` pixels."""
        return patchify(images, self.patch)

    def mean(self, moments: Float[Array, "*lead h w c"]) -> Float[Array, "*lead h w c"]:
        """The moments themselves."""
        return moments

    def draw(self, moments: Float[Array, "*lead h w c"], key: Key[Array, ""]) -> Float[Array, "*lead h w c"]:
        """The moments themselves, because nothing is random."""
        del key
        return moments

    def decode(self, latents: Float[Array, "*lead h w c"]) -> Float[Array, "*lead height width channels"]:
        """The inverse of `moments`."""
        return unpatchify(latents, self.patch)
