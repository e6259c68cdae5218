"""Logical axis names, and the one table that maps them to mesh axes.

Modules name the axes of their parameters with these constants and know nothing about devices.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import jax
from jax import Array
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import PyTree, Shaped

# Mesh axes.
DATA, FSDP, TENSOR = "data", "fsdp", "tensor"
MESH_AXES = (DATA, FSDP, TENSOR)

# Logical axes of parameters.
LAYERS = "layers"
EMBED = "embed"
HEADS = "heads"
HEAD_DIM = "head_dim"
MLP = "mlp"
QKV = "qkv"
CLASSES = "classes"
POSITIONS = "positions"
LATENT = "latent"
TIME = "time"
MODULATION = "modulation"
CONDITION = "condition"
NORM = "norm"
# The leading axis of activations, which also have HEADS and MLP. FSDP does not split their width: parameters that it
# splits are gathered where they are used.
BATCH = "batch"

RULES: tuple[tuple[str, str | tuple[str, ...] | None], ...] = (
    (BATCH, (DATA, FSDP)),
    (EMBED, FSDP),
    (HEADS, TENSOR),
    (MLP, TENSOR),
    (LAYERS, None),
    (HEAD_DIM, None),
    (QKV, None),
    (CLASSES, None),
    (POSITIONS, None),
    (LATENT, None),
    (TIME, None),
    (MODULATION, None),
    (CONDITION, None),
    (NORM, None),
)


def over(mesh: Mesh) -> AbstractContextManager:
    """A context for tracing: inside it `constrain` and `row_shards` use this mesh."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def constrain(x: Shaped[Array, "*shape"], *names: str | None) -> Shaped[Array, "*shape"]:
    """Keeps activations split as the table says; has no effect outside `over`.

    Without it the partitioner may follow the parameters instead, and split activations along their width.

    Args:
        x: the activations.
        *names: a logical name for each axis, or None for an axis that stays whole.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    axes = dict(RULES)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*(None if name is None else axes[name] for name in names)))


def on_each_device(function: Callable[..., Array], *names: str | None) -> Callable[..., Array]:
    """Runs a function on each device's part of its arrays; the function itself outside `over`.

    For kernels that the partitioner cannot split.

    Args:
        function: from arrays to an array, each with the axes of `names`.
        *names: a logical name for each axis, or None for an axis that stays whole.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return function
    axes = dict(RULES)
    spec = PartitionSpec(*(None if name is None else axes[name] for name in names))
    return jax.shard_map(function, in_specs=spec, out_specs=spec, check_vma=False)


def row_shards() -> int:
    """The number of equal runs of rows into which the mesh of `over` splits a batch; 1 outside `over`."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape[DATA] * mesh.shape[FSDP]


def gather_inside(x: Shaped[Array, "*shape"], weights: PyTree) -> tuple[Shaped[Array, "*shape"], PyTree]:
    """Makes a loop gather FSDP's weights inside its body, in each step.

    Without it the compiler gathers them once before the loop, and every device holds the whole model.

    Args:
        x: a value that changes from step to step.
        weights: values that all steps share.

    Returns:
        Both arguments, unchanged, for use in the loop's body.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape[FSDP] == 1:
        return x, weights
    return jax.lax.optimization_barrier((x, weights))
