"""The tokenizer without a network: a square of pixels is one latent position."""

import jax
from flax import struct

from transdiff_jax.nn.patches import patchify, unpatchify

Array = jax.Array


@struct.dataclass
class PixelTokenizer:
    """Space to depth and back; exact, for images small enough to model directly."""

    patch: int = struct.field(pytree_node=False)

    def encode(self, images: Array, key: Array) -> Array:
        """Images [..., height, width, channels] -> [..., height / patch, width / patch, channels * patch**2]."""
        del key  # deterministic
        return patchify(images, self.patch)

    def decode(self, latents: Array) -> Array:
        """The inverse of `encode`."""
        return unpatchify(latents, self.patch)
