"""The device mesh.

Every parallelism is a shape of this mesh: one device is (1, 1, 1), data parallel (n, 1, 1), FSDP (1, n, 1), tensor
parallel (1, 1, n).
"""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh

from transdiff_jax.config import MeshConfig
from transdiff_jax.errors import UserError
from transdiff_jax.parallel.axes import DATA, FSDP, MESH_AXES


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


def batch_shards(mesh: Mesh) -> int:
    """Into how many runs of rows `batch_sharding` splits a batch."""
    return mesh.shape[DATA] * mesh.shape[FSDP]


def check_batch(size: int, mesh: Mesh, field: str) -> None:
    """Raises a UserError unless `size` rows split evenly over the mesh; `field` names the setting."""
    shards = batch_shards(mesh)
    if size % shards:
        raise UserError(f"{field}={size} must be divisible by {shards}, the mesh's data x fsdp devices")
