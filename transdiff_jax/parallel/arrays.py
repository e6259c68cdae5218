"""Arrays over all devices: their shardings, and the ways between them and the rows that a process holds."""

from collections.abc import Iterator, Mapping

import flax.linen as nn
import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int, PyTree, Shaped

from transdiff_jax.errors import UserError
from transdiff_jax.parallel.axes import BATCH, RULES


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Splits the leading axis over the mesh's data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(dict(RULES)[BATCH]))


def replicated(mesh: Mesh) -> NamedSharding:
    """Puts the same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Puts host arrays, which are the same in every process, on every device.

    `jax.device_put` would first gather the copies of all processes on every host to compare them.
    """
    everywhere = replicated(mesh)
    return jax.tree.map(lambda leaf: jax.make_array_from_callback(leaf.shape, everywhere, leaf.__getitem__), tree)


def tree_shardings(boxed: PyTree, mesh: Mesh) -> PyTree:
    """The shardings of a tree.

    Args:
        boxed: a tree whose parameters are still boxed with logical axis names (`jax.eval_shape` of an init). Leaves
            without names, such as step counters, are replicated.
        mesh: the devices.

    Raises:
        UserError: the mesh axes that a name maps to do not divide its dimension.
    """
    shardings = nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed), mesh, RULES)
    shapes = nn.unbox(boxed)

    def check(path: tuple, sharding: NamedSharding, leaf: jax.ShapeDtypeStruct) -> None:
        try:
            sharding.shard_shape(leaf.shape)
        except ValueError:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise UserError(
                f"config.mesh={dict(mesh.shape)} cannot split {name} of shape {leaf.shape} as {sharding.spec}"
            ) from None

    jax.tree_util.tree_map_with_path(check, shardings, shapes)
    return shardings


def abstract_arrays(boxed: PyTree, mesh: Mesh) -> PyTree:
    """Turns a boxed tree of shapes into an unboxed tree of `jax.ShapeDtypeStruct` with shardings.

    Raises:
        UserError: as in `tree_shardings`.
    """
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        nn.unbox(boxed),
        tree_shardings(boxed, mesh),
    )


def held_rows(count: int, mesh: Mesh) -> Int[np.ndarray, " n"]:
    """Numbers of the rows that this process's devices hold of a batch of `count` rows, in the order of `to_global`."""
    parts = batch_sharding(mesh).addressable_devices_indices_map((count,)).values()
    return np.unique(np.concatenate([np.arange(count)[part] for part in parts]))


def to_global(batch: Mapping[str, Shaped[np.ndarray, "n ..."]], mesh: Mesh) -> dict[str, Shaped[Array, "b ..."]]:
    """Makes the arrays of a whole batch, sharded over the mesh, from this process's rows."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}


def from_whole(batch: Mapping[str, Shaped[np.ndarray, "b ..."]], mesh: Mesh) -> dict[str, Shaped[Array, "b ..."]]:
    """Shards a batch that every process holds whole."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_callback(value.shape, sharding, value.__getitem__) for name, value in batch.items()
    }


def own_rows(array: Shaped[Array, "b ..."]) -> Iterator[tuple[int, Shaped[np.ndarray, "..."]]]:
    """Yields the numbers and rows of a batch that this process must read; all processes together read each row once."""
    for shard in array.addressable_shards:
        if shard.replica_id == 0:
            yield from enumerate(np.asarray(shard.data), start=shard.index[0].start or 0)
