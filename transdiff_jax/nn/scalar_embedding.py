"""Embeds a scalar such as a length of time or a guidance weight; the embedding is zero until it is trained."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Real

from transdiff_jax.nn.layers import dense
from transdiff_jax.parallel import axes

FREQUENCIES = 32
HIDDEN = 64


def scalar_features(values: Real[Array | np.ndarray, "*rows"]) -> Float[Array, "*rows 64"]:
    """Cosines, then sines, of values in [-1, 1] at 32 frequencies from a quarter turn to four turns, in float32."""
    frequencies = np.pi * 2.0 ** np.linspace(-1, 3, FREQUENCIES)
    angles = jnp.asarray(values, jnp.float32)[..., None] * frequencies.astype(np.float32)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class ScalarEmbedding(nn.Module):
    """Features, a hidden layer, and a last layer that starts at zero: a trained network stays as it was."""

    width: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, values: Real[Array | np.ndarray, "*rows"]) -> Float[Array, "*rows width"]:
        """The embedding of values of about [-1, 1]."""
        x = scalar_features(values).astype(self.dtype)
        x = nn.silu(dense(HIDDEN, (axes.TIME, axes.MODULATION), self.dtype, name="up")(x))
        zeros = nn.initializers.zeros
        return dense(self.width, (axes.MODULATION, axes.EMBED), self.dtype, kernel_init=zeros, name="down")(x)
