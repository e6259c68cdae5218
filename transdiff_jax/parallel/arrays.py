"""Arrays of all devices: how they are sharded, from what processes hold, and back."""

from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from transdiff_jax.errors import UserError
from transdiff_jax.parallel.axes import BATCH, RULES


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Leading axis over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(dict(RULES)[BATCH]))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Arrays on the host, the same in every process, on every device.

    `jax.device_put` would first compare them, by gathering the copies of all processes on every host.
    """
    everywhere = replicated(mesh)
    return jax.tree.map(lambda leaf: jax.make_array_from_callback(leaf.shape, everywhere, leaf.__getitem__), tree)


def tree_shardings(boxed: Any, mesh: Mesh) -> Any:
    """Shardings of a tree whose parameters are still boxed with logical axis names (`jax.eval_shape` of an init).

    Leaves without names (step counters) are replicated.

    Raises:
        UserError: a dimension does not divide by the mesh axes that its name maps to.
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


def abstract_arrays(boxed: Any, mesh: Mesh) -> Any:
    """A boxed tree of shapes -> an unboxed one of `jax.ShapeDtypeStruct`, sharded; raises like `tree_shardings`."""
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        nn.unbox(boxed),
        tree_shardings(boxed, mesh),
    )


def held_rows(count: int, mesh: Mesh) -> np.ndarray:
    """Which of the `count` rows of a batch this process's devices hold, in the order that `to_global` takes them in."""
    parts = batch_sharding(mesh).addressable_devices_indices_map((count,)).values()
    return np.unique(np.concatenate([np.arange(count)[part] for part in parts]))


def to_global(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's rows of a batch -> arrays of the whole batch, sharded over the mesh."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}


def from_whole(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """A batch that every process holds whole -> arrays sharded over the mesh."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_callback(value.shape, sharding, value.__getitem__) for name, value in batch.items()
    }


def own_rows(array: jax.Array) -> Iterator[tuple[int, np.ndarray]]:
    """The rows of a batch that this process is to read, with their numbers; over all processes, each row once."""
    for shard in array.addressable_shards:
        if shard.replica_id == 0:
            yield from enumerate(np.asarray(shard.data), start=shard.index[0].start or 0)
