"""Parameters to test with."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from transdiff_jax.model.params import init_params, init_shapes


def perturb(params, scale=0.25, seed=1):
    """A tree of the same shapes without zeros: N(0, scale**2), or around one for the scales of norms."""
    generator = np.random.default_rng(seed)

    def draw(path, leaf):
        around = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(around + scale * generator.standard_normal(leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, nn.unbox(params))


@functools.cache
def random_params(model):
    # NumPy draws them, because compiling the draws of `init` takes longer than most tests.
    return perturb(init_shapes(model))


@functools.cache
def fresh_params(model):
    return jax.jit(lambda: nn.unbox(init_params(model, 0)))()
