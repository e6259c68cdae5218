"""The device mesh.

Each kind of parallelism is a shape of this mesh: one device is (1, 1, 1), data parallel (n, 1, 1), FSDP (1, n, 1),
tensor parallel (1, 1, n).
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
    """Makes the mesh.

    Args:
        config: its sizes.
        devices: all devices by default.
        field: name of the setting in error messages.

    Raises:
        UserError: the product of the sizes is not the number of devices, or the sizes do not fit the slices.
    """
    devices = _all_devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.tensor]
    shown = f"{field}=(data={config.data}, fsdp={config.fsdp}, tensor={config.tensor})"
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise UserError(f"{shown}: sizes must be at least 1, and at most one may be -1 (the remaining devices)")
    known = math.prod(size for size in sizes if size != -1)
    if len(devices) % known:
        raise UserError(f"{shown} does not fit {len(devices)} device(s): {known} does not divide {len(devices)}")
    sizes = [len(devices) // known if size == -1 else size for size in sizes]
    if math.prod(sizes) != len(devices):
        raise UserError(f"{shown} uses {math.prod(sizes)} of {len(devices)} device(s); set one size to -1")
    slices = num_slices(devices, config.dcn_data)
    if sizes[0] % slices:
        raise UserError(
            f"{shown}: {slices} slices (config.mesh.dcn_data) cannot split a data axis of {sizes[0]} devices evenly"
        )
    return Mesh(_arrange(devices, sizes, slices), MESH_AXES)


def num_slices(devices: Sequence[jax.Device], asked: int) -> int:
    """The number of slices that only a data center network joins.

    On TPUs this is the number of slices found, on other devices the number asked for. GPUs have a slice index too, but
    it numbers their machines, and any axis may cross machines.

    Args:
        devices: of the mesh.
        asked: `config.mesh.dcn_data`; -1 takes what is found, or 1.

    Raises:
        UserError: `asked` is neither -1 nor the number found.
    """
    if devices[0].platform != "tpu":
        return 1 if asked == -1 else asked
    found = len({getattr(device, "slice_index", 0) for device in devices})
    if asked not in (-1, found):
        raise UserError(f"config.mesh.dcn_data={asked} must be -1 or the number of slices, {found}")
    return found


def _arrange(devices: Sequence[jax.Device], sizes: Sequence[int], slices: int) -> np.ndarray:
    """Devices in the mesh's shape, so that neighbours on the later axes are neighbours in the machine.

    Each slice is a run of the data axis.
    """
    if devices[0].platform != "tpu":  # JAX lists others in the machine's order; equal runs of that stand for slices
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
    except (RuntimeError, AssertionError) as error:  # backends without a device raise either
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        # pyrefly: ignore[missing-attribute]  # JAX defines the options of its config at run time.
        platforms = jax.config.jax_platforms
        raise UserError(f"JAX finds no device (JAX_PLATFORMS={platforms}): {reason}") from None


def batch_shards(mesh: Mesh) -> int:
    """The number of runs of rows into which `batch_sharding` splits a batch."""
    return mesh.shape[DATA] * mesh.shape[FSDP]


def check_batch(size: int, mesh: Mesh, field: str) -> None:
    """Checks that the rows of a batch split evenly over the mesh.

    Args:
        size: number of rows.
        mesh: the devices.
        field: name of the setting in the error message.

    Raises:
        UserError: the rows do not split evenly.
    """
    shards = batch_shards(mesh)
    if size % shards:
        raise UserError(f"{field}={size} must be divisible by {shards}, the mesh's data x fsdp devices")
