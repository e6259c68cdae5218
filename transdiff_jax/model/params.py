"""The model's parameters: fresh ones, their shapes on a mesh without any memory, and the model applied to them."""

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import unfreeze
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Int, Key

from transdiff_jax import rng
from transdiff_jax.config import ModelConfig
from transdiff_jax.errors import UserError
from transdiff_jax.model.mesh_checks import check_model
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.parallel.arrays import abstract_arrays

Params = dict[str, Any]  # a tree of float32 arrays by name
AbstractParams = dict[str, Any]  # the same tree of `jax.ShapeDtypeStruct`
Rngs = dict[str, Key[Array, ""]]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def init_params(config: ModelConfig, seed: int | Int[Array, ""]) -> Params:
    """Fresh float32 parameters, boxed with their logical axis names (`flax.linen.unbox` removes the boxes).

    Raises:
        UserError: the number of classes is not known.
    """
    if not config.num_classes:
        raise UserError("config.model.num_classes=0 is counted only where a run trains: give the number of classes")
    grid = (config.latent_size, config.latent_size, config.latent_channels)
    references = jnp.zeros((1, config.num_images - 1, *grid)) if config.num_images > 1 else None
    x_t = jnp.zeros((1, 1, config.latent_tokens, config.latent_channels))
    labels, null = jnp.zeros(1, jnp.int32), jnp.zeros(1, bool)
    model = TransDiff(config)
    variables = model.init(rng.key(seed, rng.PARAMS), labels, null, references, x_t, jnp.zeros((1, 1)))
    return unfreeze(variables)["params"]


@functools.lru_cache(maxsize=8)  # a command asks several times, and tracing the model takes most of a small read
def init_shapes(config: ModelConfig) -> AbstractParams:
    """Shapes and dtypes of `init_params`, boxed like them, which take no memory; leave the tree as it is."""
    return jax.eval_shape(lambda: init_params(config, 0))


@functools.lru_cache(maxsize=4)
def abstract_params(config: ModelConfig, mesh: Mesh) -> AbstractParams:
    """Shapes, dtypes and shardings of the parameters, which take no memory; leave the tree as it is.

    Raises:
        UserError: the mesh cannot split a parameter.
    """
    check_model(config, mesh)
    return abstract_arrays(init_shapes(config), mesh)


def init_sharded_params(config: ModelConfig, seed: int, mesh: Mesh) -> Params:
    """Fresh unboxed parameters, made on the devices that hold them; raises like `abstract_params`."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_params(config, mesh))
    return jax.jit(lambda: nn.unbox(init_params(config, seed)), out_shardings=shardings)()


def applied(
    model: TransDiff,
    params: Params,
    method: Callable[Concatenate[TransDiff, Arguments], Result],
    rngs: Rngs | None = None,
) -> Callable[Arguments, Result]:
    """A method of the model, with these parameters, as a function of its other arguments.

    Args:
        model: the network.
        params: its parameters.
        method: of `TransDiff`, such as `TransDiff.encode`.
        rngs: keys by name, for dropout; None for none.
    """
    # pyrefly: ignore[bad-return]  # `apply` returns a pair only if it is given mutable collections
    return functools.partial(model.apply, {"params": params}, method=method, rngs=rngs)
