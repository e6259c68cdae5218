"""What the devices and the host hold, and one line for what surely does not fit."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

import jax
from jax.sharding import Mesh
from jaxtyping import PyTree

from transdiff_jax.errors import UserError

Bytes = Mapping[str, int]  # by what takes them
_CGROUPS, _OWN_CGROUPS, _MEMORY = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"), Path("/proc/meminfo")


def held_bytes(arrays: PyTree) -> int:
    """Bytes that a tree takes on each device.

    Args:
        arrays: arrays, or `jax.ShapeDtypeStruct` with shardings.
    """
    leaves = jax.tree.leaves(arrays)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def device_memory(mesh: Mesh) -> int | None:
    """Bytes of the smallest of this process's devices in a mesh; None if a device does not tell.

    CPU devices share the host's memory equally.
    """
    devices = mesh.local_devices
    if devices[0].platform == "cpu":
        return host_memory() // len(devices)
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    known = [limit for limit in limits if limit is not None]
    return min(known) if len(known) == len(devices) else None


def host_memory() -> int:
    """Bytes of memory and swap that this process could have if it were alone, under the limits of its control group."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([memory, *_group_limits()]) + _swap()


def _swap() -> int:
    lines = _MEMORY.read_text().splitlines() if _MEMORY.exists() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("SwapTotal:"))


def _group_limits() -> list[int]:
    """The limits of this process's control groups and those above them, of version 1 and 2."""
    found = []
    for line in _OWN_CGROUPS.read_text().splitlines() if _OWN_CGROUPS.exists() else []:
        _, kind, name = line.split(":", 2)
        root, file = (_CGROUPS / "memory", "memory.limit_in_bytes") if kind else (_CGROUPS, "memory.max")
        # In a container, the group's own name may be that of the host, and its limits lie at the root.
        group = root / name.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root) and (folder / file).is_file():
                found.append((folder / file).read_text().strip())
    return [int(limit) for limit in found if limit.isdecimal()]


def check_devices(what: str, needed: Bytes, mesh: Mesh, remedy: str) -> None:
    """Refuses what surely does not fit on the devices, before anything is allocated.

    Args:
        what: takes the memory, for the message.
        needed: bytes of each device that are taken at the same time, by what takes them.
        mesh: the devices.
        remedy: what a user can do.

    Raises:
        UserError: it takes more than a device has.
    """
    held = device_memory(mesh)
    if held is not None and sum(needed.values()) > held:
        kind = mesh.local_devices[0].device_kind
        raise _does_not_fit(what, needed, f"of each device ({mesh.size} x {kind})", held, remedy)


def check_host(what: str, needed: Bytes, remedy: str) -> None:
    """Refuses what surely does not fit in this process's host memory; arguments and errors as `check_devices`."""
    held = host_memory()
    if sum(needed.values()) > held:
        raise _does_not_fit(what, needed, "of host memory", held, remedy)


def _does_not_fit(what: str, needed: Bytes, place: str, held: int, remedy: str) -> UserError:
    parts = ", ".join(f"{name} {_size(count)}" for name, count in needed.items() if count)
    total = _size(sum(needed.values()))
    return UserError(f"{what} takes at least {total} {place}, which has {_size(held)} ({parts}): {remedy}")


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
