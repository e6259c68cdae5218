"""NVIDIA GPUs that are not there, described to the compiler that is part of jax[cuda12].

The figures are those of github.com/openxla/xla, xla/backends/gpu/target_config/specs.
"""

import importlib.util
import re
from typing import NamedTuple

import jax
from jax.experimental import topologies

from transdiff_jax.benchmark.chips import GPUS
from transdiff_jax.errors import UserError

_SHAPE = re.compile(r"(?:([1-9]\d*)x)?([1-9]\d*)")


class _Gpu(NamedTuple):
    """What code generation asks about a GPU beside its memory."""

    name: str
    capability: int
    cores: int
    units: int  # that add and multiply floats, in each core
    shared_memory: int  # bytes of each core
    block_shared_memory: int  # bytes that one block can ask for
    cache: int  # bytes
    clock: float  # GHz
    bandwidth: int  # bytes/s


_GPUS = {
    "a100": _Gpu("NVIDIA A100-SXM4-80GB", 8, 108, 64, 167936, 166912, 41943040, 1.41, 2039040000000),
    "h100": _Gpu("NVIDIA H100 80GB HBM3", 9, 132, 128, 233472, 232448, 52428800, 1.98, 3352320000000),
    "h200": _Gpu("NVIDIA H200 141GB HBM3e", 9, 132, 128, 233472, 232448, 52428800, 1.98, 4800000000000),
    "b200": _Gpu("NVIDIA B200", 10, 148, 128, 233472, 232448, 132644864, 1.965, 7672320000000),
}
_TARGET = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 shared_memory_per_block: 49152
  shared_memory_per_core: {gpu.shared_memory} shared_memory_per_block_optin: {gpu.block_shared_memory}
  core_count: {gpu.cores} fpus_per_core: {gpu.units} clock_rate_ghz: {gpu.clock}
  memory_bandwidth: {gpu.bandwidth} l2_cache_size: {gpu.cache} device_memory_size: {memory}
  cuda_compute_capability {{ major: {gpu.capability} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{gpu.name}"
"""


def prepare() -> None:
    """Keeps JAX itself on the CPU. Call it before touching a device.

    Raises:
        UserError: the compiler is not installed.
    """
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        raise UserError("--what=aot needs the compiler for GPUs, which is not installed: pip install 'jax[cuda12]'")
    jax.config.update("jax_platforms", "cpu")


def shape(topology: str) -> tuple[int, int]:
    """The number of hosts, and of GPUs of a host, in a topology such as "h100:8" or "h100:2x8".

    Raises:
        UserError: it is no such text.
    """
    name, _, sizes = topology.partition(":")
    match = _SHAPE.fullmatch(sizes)
    if name not in GPUS or match is None:
        raise UserError(
            f"--topology={topology} must be one of {', '.join(GPUS)} and the number of GPUs, such as h100:8, or of "
            "hosts and GPUs of each, such as h100:2x8"
        )
    return int(match[1] or 1), int(match[2])


def devices(topology: str) -> list[jax.Device]:
    """Devices to compile for; raises like `shape`."""
    hosts, count = shape(topology)
    name = topology.partition(":")[0]
    target = _TARGET.format(gpu=_GPUS[name], memory=GPUS[name].hbm_bytes)
    found = topologies.get_topology_desc(
        platform="cuda", topology_name="", target_config=target, topology=f"1x{hosts}x{count}"
    )
    return list(found.devices)
