"""Noise of tiny samples."""

import jax.numpy as jnp
import numpy as np

from transdiff_jax.sampling.noise import SeededNoise

SHAPE = (16, 4)  # tokens and channels of a tiny latent
STEPS = 3
INDICES = np.array([0, 1, 2, 3, 40, 1000, 49_999, 7], np.int32)


def draws(seed, indices):
    """All noise of some samples: initial [b, ...], and that of steps [image, interval, b, ...]."""
    noise = SeededNoise(jnp.int32(seed), jnp.asarray(indices))
    steps = [[noise.step(image, SHAPE, jnp.int32(k)) for k in range(STEPS)] for image in range(4)]
    return noise.initial(SHAPE), jnp.array(steps)
