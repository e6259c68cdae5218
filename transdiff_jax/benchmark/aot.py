"""Compiles a configuration for a TPU slice ahead of time, on any host, without a TPU.

The program is the one that trains, or samples latents, on that slice. Parameters and batch exist as shapes only. KL-16
is not part of it: a training batch holds cached moments.
"""

import importlib.util
import os
import time
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh
from jax.stages import Compiled

from transdiff_jax.benchmark.chips import CHIPS, Chip
from transdiff_jax.benchmark.flops import evaluations
from transdiff_jax.benchmark.hlo import Collective, collectives
from transdiff_jax.benchmark.measuring import batch_shapes, lower, settings, weightless_tokenizer
from transdiff_jax.benchmark.sampling_speed import batch_flops, jit_sampler
from transdiff_jax.benchmark.training_speed import flops_per_image
from transdiff_jax.config import Config
from transdiff_jax.errors import UserError
from transdiff_jax.model.params import abstract_params
from transdiff_jax.parallel import axes
from transdiff_jax.parallel.arrays import batch_sharding, replicated
from transdiff_jax.parallel.mesh import check_batch, make_mesh, num_slices
from transdiff_jax.storage.files import Json
from transdiff_jax.training.state import abstract_state
from transdiff_jax.training.step import jit_train_step

Mode = Literal["train", "sample"]

# libtpu reads the slice that it runs on from these, or else from a cloud machine's metadata server. Here there is none.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
FULL_REMAT = 4 / 3  # two forward passes instead of one, beside a backward pass that costs two


def prepare() -> None:
    """Sets what libtpu reads when it is loaded, and keeps JAX itself on the CPU. Call it before touching a device.

    Raises:
        UserError: libtpu is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("--what=aot needs the TPU compiler, which is not installed: pip install 'jax[tpu]'")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")


def topology_devices(topology: str, num_slices: int) -> list[jax.Device]:
    """Devices to compile for.

    Args:
        topology: a chip of `CHIPS` and the shape of a slice, such as "v5e:4x4".
        num_slices: how many slices of that shape the data center network joins.

    Raises:
        UserError: the chip or the shape does not exist.
    """
    if topology.partition(":")[0] not in CHIPS:
        raise UserError(f"--topology={topology} must be one of {', '.join(CHIPS)} and a shape, such as v5e:4x4")
    slices = {"num_slices": num_slices} if num_slices > 1 else {}
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology, **slices).devices)
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        raise UserError(f"--topology={topology}: libtpu knows no such slice: {str(error).splitlines()[0]}") from None


def benchmark_aot(config: Config, devices: list[jax.Device], chip: Chip, mode: Mode) -> Json:
    """Compiles a training step, or the sampling of one batch.

    Args:
        config: model, mesh, and the settings of the mode. Batch sizes are those of all chips together.
        devices: from `topology_devices`.
        chip: their kind, an entry of `CHIPS`.
        mode: which program.

    Returns:
        A record. Sizes are bytes of one chip. `fits` is false if the compiler refused, and `refused` says why. The
        expected time is the largest of its terms: the time of a chip that does everything at once, at its peak.

    Raises:
        UserError: batch, model and mesh do not fit each other.
    """
    mesh = make_mesh(config.mesh, devices)
    size = config.train.batch_size if mode == "train" else config.sampling.batch_size
    record = settings("aot", config.model, mesh, size) | {
        "mode": mode,
        "batch_size_per_chip": size / mesh.size,
        "hbm_bytes": chip.hbm_bytes,
        "fits": False,
        "refused": None,
    }
    jitted, arguments, flops = _train(config, mesh) if mode == "train" else _sample(config, mesh)
    started = time.monotonic()
    try:
        program = lower(jitted, *arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return record | {"refused": " ".join(str(error).split())[:400], "compile_seconds": time.monotonic() - started}
    record["compile_seconds"] = time.monotonic() - started
    return record | _plan(config, mesh, chip, mode, program, flops)


def _plan(config: Config, mesh: Mesh, chip: Chip, mode: Mode, program: Compiled, flops: float) -> Json:
    """Memory, exchanges and expected time of the compiled program."""
    memory, text = _memory(program), program.as_text()
    if text is None:
        raise RuntimeError("the compiled program has no text, from which its collectives could be read")
    found = collectives(text)
    computed = flops * (FULL_REMAT if mode == "train" and config.model.remat == "full" else 1)
    slices = num_slices(list(mesh.devices.flat), config.mesh.dcn_data)
    size = config.train.batch_size * config.model.num_images if mode == "train" else config.sampling.batch_size
    terms = {
        "compute": computed / mesh.size / chip.flops,
        "hbm": _hbm_bytes(config, mesh, mode, memory) / chip.hbm,
        "ici": sum(c.sent_bytes * c.times for c in found if not c.crosses(mesh.size, slices)) / chip.ici,
        "dcn": sum(c.sent_bytes * c.times for c in found if c.crosses(mesh.size, slices)) / chip.dcn,
    }
    return {
        "memory": memory,
        "compiled_memory_bytes": memory["peak"],
        "fits": memory["peak"] <= chip.hbm_bytes,
        "flops_per_image": flops / size,
        "collectives": summary(found),
        "expected_terms": terms,
        "expected_seconds": max(terms.values()),
    }


def _train(config: Config, mesh: Mesh) -> tuple[Callable[..., object], tuple[object, ...], float]:
    check_batch(config.train.batch_size // config.train.accumulation, mesh, "batch_size")
    arguments = abstract_state(config, mesh), batch_shapes(config, mesh), weightless_tokenizer(config.tokenizer)
    rows = config.train.batch_size
    return jit_train_step(config, mesh), arguments, flops_per_image(config) * config.model.num_images * rows


def _sample(config: Config, mesh: Mesh) -> tuple[Callable[..., object], tuple[object, ...], float]:
    size = config.sampling.batch_size
    check_batch(size, mesh, "batch_size")
    rows = jax.ShapeDtypeStruct((size,), np.int32, sharding=batch_sharding(mesh))
    seed = jax.ShapeDtypeStruct((), np.int32, sharding=replicated(mesh))
    arguments = abstract_params(config.model, mesh), rows, seed, rows
    return jit_sampler(config, mesh, naive=False), arguments, batch_flops(config, mesh)


def _memory(program: Compiled) -> dict[str, int]:
    plan = program.memory_analysis()
    if plan is None:
        raise RuntimeError("the compiler does not say how much memory its program needs")
    sizes = {
        "arguments": plan.argument_size_in_bytes,
        "outputs": plan.output_size_in_bytes,
        "donated": plan.alias_size_in_bytes,
        "temporaries": plan.temp_size_in_bytes,
    }
    together = sizes["arguments"] + sizes["outputs"] - sizes["donated"] + sizes["temporaries"]
    return sizes | {"peak": together}


def _hbm_bytes(config: Config, mesh: Mesh, mode: Mode, memory: dict[str, int]) -> float:
    """The least traffic of a chip's memory: each buffer once each way. Sampling reads the weights at every step."""
    once = memory["arguments"] + memory["outputs"] + 2 * memory["temporaries"]
    if mode == "train":
        return once
    decoder = abstract_params(config.model, mesh)["decoder"]
    weights = sum(leaf.size for leaf in jax.tree.leaves(decoder)) * jnp.dtype(config.model.dtype).itemsize
    passes = sum(sum(evaluations(image)) for image in config.sampling.of_images(config.model.num_images))
    return once + passes * weights / mesh.shape[axes.TENSOR]


def summary(found: list[Collective]) -> dict[str, dict[str, int | bool]]:
    """Collectives by kind: the number of instructions and of their runs, and the bytes of their results over all runs.

    If the text does not hold the length of a loop, its body counts once and `complete` is false.
    """
    kinds: dict[str, dict[str, int | bool]] = {}
    for collective in found:
        entry = kinds.setdefault(collective.kind, {"instructions": 0, "runs": 0, "bytes": 0, "complete": True})
        entry["instructions"] += 1
        entry["runs"] += collective.times
        entry["bytes"] += collective.times * collective.bytes
        entry["complete"] &= collective.counted
    return kinds
