"""The tokenizer without a network: a square of pixels is one latent position."""

import jax
from flax import struct

from transdiff_jax.nn.patches import patchify, unpatchify

Array = jax.Array


@struct.dataclass
class PixelTokenizer:
    """Space to depth and back; exact, for images small enough to model directly."""

    patch: int = struct.field(pytree_node=False)

    def moments(self, images: Array) -> Array:
        """Images [..., height, width, channels] -> [..., height / patch, width / patch, channels * patch**2]."""
        return patchify(images, self.patch)

    def mean(self, moments: Array) -> Array:
        """The moments themselves."""
        return moments

    def draw(self, moments: Array, key: Array) -> Array:
        """The moments themselves: they leave nothing to chance."""
        del key
        return moments

    def decode(self, latents: Array) -> Array:
        """The inverse of `moments`."""
        return unpatchify(latents, self.patch)
