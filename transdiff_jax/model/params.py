"""The parameters of the model: fresh ones, and their shapes over a mesh without any memory."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from transdiff_jax import rng
from transdiff_jax.config import ModelConfig
from transdiff_jax.model.mesh_checks import check_model
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.parallel.arrays import abstract_arrays

Params = dict  # a tree of float32 arrays by name


def init_params(config: ModelConfig, seed: int) -> Params:
    """Fresh float32 parameters, boxed with their logical axis names (`flax.linen.unbox` takes the boxes off)."""
    grid = (config.latent_size, config.latent_size, config.latent_channels)
    references = jnp.zeros((1, config.num_images - 1, *grid)) if config.num_images > 1 else None
    x_t = jnp.zeros((1, 1, config.latent_tokens, config.latent_channels))
    labels, null = jnp.zeros(1, jnp.int32), jnp.zeros(1, bool)
    model = TransDiff(config)
    return model.init(rng.key(seed, rng.PARAMS), labels, null, references, x_t, jnp.zeros((1, 1)))["params"]


def abstract_params(config: ModelConfig, mesh: Mesh) -> Params:
    """Shapes, dtypes and shardings of the parameters (`jax.ShapeDtypeStruct`), without any memory.

    Raises:
        UserError: the mesh cannot split a parameter.
    """
    check_model(config, mesh)
    return abstract_arrays(jax.eval_shape(lambda: init_params(config, 0)), mesh)


def init_sharded_params(config: ModelConfig, seed: int, mesh: Mesh) -> Params:
    """Fresh parameters (unboxed), made where they belong; raises like `abstract_params`."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_params(config, mesh))
    return jax.jit(lambda: nn.unbox(init_params(config, seed)), out_shardings=shardings)()
