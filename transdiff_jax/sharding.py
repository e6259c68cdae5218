"""The device mesh, logical axis names, and the one table that maps names to mesh axes.

Every parallelism is a shape of this mesh: one device is (1, 1, 1), data parallel (n, 1, 1), FSDP (1, n, 1), tensor
parallel (1, 1, n). Modules name the axes of their parameters with the constants below and know nothing of devices.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from transdiff_jax.config import MeshConfig, ModelConfig
from transdiff_jax.errors import UserError

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


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None, field: str = "config.mesh") -> Mesh:
    """A mesh of all (or the given) devices; `field` names the setting in errors.

    Raises:
        UserError: the sizes do not multiply to the number of devices, or do not fit the slices that they are in.
    """
    devices = _all_devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.tensor]
    shown = f"{field}=(data={config.data}, fsdp={config.fsdp}, tensor={config.tensor})"
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise UserError(f"{shown}: sizes must be at least 1, and at most one may be -1 (the devices that remain)")
    known = math.prod(size for size in sizes if size != -1)
    if len(devices) % known:
        raise UserError(f"{shown} does not fit {len(devices)} device(s): {known} does not divide {len(devices)}")
    sizes = [len(devices) // known if size == -1 else size for size in sizes]
    if math.prod(sizes) != len(devices):
        raise UserError(f"{shown} uses {math.prod(sizes)} of {len(devices)} device(s); set one size to -1")
    slices = num_slices(devices, config.dcn_data)
    if sizes[0] % slices:
        raise UserError(
            f"{shown}: the data axis of {sizes[0]} cannot be laid over {slices} slices (config.mesh.dcn_data)"
        )
    return Mesh(_arrange(devices, sizes, slices), MESH_AXES)


def num_slices(devices: Sequence[jax.Device], asked: int) -> int:
    """How many slices only a data center network joins: of TPUs those that are found, of other devices those asked for.

    GPUs have a slice index too, but it is that of their machine, and any axis may cross machines.

    Raises:
        UserError: `asked` is not -1 and not what is found.
    """
    if devices[0].platform != "tpu":
        return 1 if asked == -1 else asked
    found = len({getattr(device, "slice_index", 0) for device in devices})
    if asked not in (-1, found):
        raise UserError(f"config.mesh.dcn_data={asked} must be -1 or the number of slices, {found}")
    return found


def _arrange(devices: Sequence[jax.Device], sizes: Sequence[int], slices: int) -> np.ndarray:
    """Devices in the mesh's shape, so that neighbours on the later axes are neighbours in the machine.

    Of slices, each is a run of the data axis.
    """
    if devices[0].platform != "tpu":  # the order of other devices is the machine's; equal runs of it stand for slices
        return np.asarray(devices).reshape(sizes)
    if slices == 1:
        return mesh_utils.create_device_mesh(sizes, list(devices), allow_split_physical_axes=True)
    data, *inner = sizes
    return mesh_utils.create_hybrid_device_mesh(
        (data // slices, *inner), (slices, 1, 1), list(devices), allow_split_physical_axes=True
    )


def _all_devices() -> list[jax.Device]:
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # what a backend raises that has no device
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"JAX finds no device (JAX_PLATFORMS={jax.config.jax_platforms}): {reason}") from None


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Leading axis over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(dict(RULES)[BATCH]))


def over(mesh: Mesh) -> AbstractContextManager:
    """While a function is traced under it, `constrain` means this mesh."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Activations that stay split as the table says, by one logical name (or None) for each axis; none outside `over`.

    Without it the partitioner may follow the parameters instead, and split the width of what has been a batch.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    axes = dict(RULES)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*(None if name is None else axes[name] for name in names)))


def gather_inside(x: jax.Array, weights: Any) -> tuple[jax.Array, Any]:
    """Both as they are, for a loop's body in which `x` changes: what FSDP splits is gathered there, in each step.

    Without it the compiler gathers what all steps share before the loop, and every device holds the whole model.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape[FSDP] == 1:
        return x, weights
    return jax.lax.optimization_barrier((x, weights))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Arrays on the host, the same in every process, on every device.

    `jax.device_put` would first compare them, by gathering the copies of all processes on every host.
    """
    everywhere = replicated(mesh)
    return jax.tree.map(lambda leaf: jax.make_array_from_callback(leaf.shape, everywhere, leaf.__getitem__), tree)


def batch_shards(mesh: Mesh) -> int:
    """Into how many runs of rows `batch_sharding` splits a batch."""
    return mesh.shape[DATA] * mesh.shape[FSDP]


def check_batch(size: int, mesh: Mesh, field: str) -> None:
    """Raises a UserError unless `size` rows split evenly over the mesh; `field` names the setting."""
    shards = batch_shards(mesh)
    if size % shards:
        raise UserError(f"{field}={size} must be divisible by {shards}, the mesh's data x fsdp devices")


def check_model(model: ModelConfig, mesh: Mesh) -> None:
    """Raises a UserError, before anything is compiled, for a model that the mesh cannot split evenly."""
    tensor, fsdp = mesh.shape[TENSOR], mesh.shape[FSDP]
    for size, field, split, axis in (
        (model.heads, f"config.model.heads={model.heads}", tensor, TENSOR),
        (4 * model.width, f"the MLP's 4 x config.model.width={model.width}", tensor, TENSOR),
        (model.width, f"config.model.width={model.width}", fsdp, FSDP),
    ):
        if size % split:
            raise UserError(f"{field} must be divisible by {split}, the mesh's {axis} devices")


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
