"""Logical axis names, and the one table that maps them to mesh axes.

Modules name the axes of their parameters with these constants and know nothing of devices.
"""

from contextlib import AbstractContextManager
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

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
# Of activations, which have HEADS and MLP too. Their width is whole: what FSDP splits is gathered where it is used.
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
    """While a function is traced under it, `constrain` and `row_shards` mean this mesh."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Activations that stay split as the table says, by one logical name (or None) for each axis; none outside `over`.

    Without it the partitioner may follow the parameters instead, and split the width of what has been a batch.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    axes = dict(RULES)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*(None if name is None else axes[name] for name in names)))


def row_shards() -> int:
    """Into how many equal runs of rows a batch is split where a function is traced `over` a mesh; elsewhere 1."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape[DATA] * mesh.shape[FSDP]


def gather_inside(x: jax.Array, weights: Any) -> tuple[jax.Array, Any]:
    """Both as they are, for a loop's body in which `x` changes: what FSDP splits is gathered there, in each step.

    Without it the compiler gathers what all steps share before the loop, and every device holds the whole model.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape[FSDP] == 1:
        return x, weights
    return jax.lax.optimization_barrier((x, weights))
