"""Compiles a configuration ahead of time, on any host, for TPUs or GPUs that are not there.

The program is the one that trains, or samples latents, on them. Parameters and batch exist as shapes only. KL-16 is not
part of it: a training batch holds cached moments.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jax.sharding import Mesh
from jax.stages import Compiled

from transdiff_jax.benchmark import gpu_topology, tpu_topology
from transdiff_jax.benchmark.chips import CHIPS, GPUS, Chip
from transdiff_jax.benchmark.collectives import collectives, summary
from transdiff_jax.benchmark.hlo import Module, parse
from transdiff_jax.benchmark.measuring import batch_shapes, lower, settings, weightless_tokenizer
from transdiff_jax.benchmark.prediction import Machine, predict
from transdiff_jax.benchmark.sampling_speed import batch_flops, jit_sampler
from transdiff_jax.benchmark.student_step import frozen_shapes, objective_of
from transdiff_jax.benchmark.training_speed import flops_per_image
from transdiff_jax.config import Config
from transdiff_jax.errors import UserError
from transdiff_jax.model.params import abstract_params
from transdiff_jax.parallel.arrays import batch_sharding, replicated
from transdiff_jax.parallel.mesh import check_batch, make_mesh, num_slices
from transdiff_jax.storage.files import Json, write_bytes, write_errors
from transdiff_jax.training.state import abstract_state
from transdiff_jax.training.step import jit_train_step

Mode = Literal["train", "sample"]

FULL_REMAT = 4 / 3  # two forward passes instead of one, beside a backward pass that costs two


def chip_of(topology: str) -> str:
    """The name of a topology's chip, an entry of `CHIPS`.

    Raises:
        UserError: it is none of them.
    """
    name = topology.partition(":")[0]
    if name not in CHIPS:
        raise UserError(
            f"--topology={topology} must be one of {', '.join(CHIPS)} and a shape, such as v5e:4x4, h100:8 or h100:2x8"
        )
    return name


def prepare(topology: str) -> None:
    """Readies the compiler for a topology, before a device is touched; raises a UserError if it is not installed."""
    (gpu_topology if chip_of(topology) in GPUS else tpu_topology).prepare()


def topology_devices(topology: str, slices: int) -> list[jax.Device]:
    """Devices to compile for.

    Args:
        topology: a chip of `CHIPS` and a shape: of a TPU slice ("v5e:4x4"), or the number of GPUs ("h100:8"), or of
            hosts and the GPUs of each ("h100:2x8").
        slices: how many TPU slices of that shape the data center network joins.

    Raises:
        UserError: there is no such chip or shape.
    """
    if chip_of(topology) not in GPUS:
        return tpu_topology.devices(topology, slices)
    if slices != 1:
        raise UserError(f"--num_slices goes with TPUs: write several hosts of GPUs as --topology={topology[:4]}:2x8")
    return gpu_topology.devices(topology)


def benchmark_aot(config: Config, devices: list[jax.Device], chip: Chip, mode: Mode, hlo: Path | None = None) -> Json:
    """Compiles a training step, or the sampling of one batch.

    Args:
        config: model, mesh, and the settings of the mode. Batch sizes are those of all chips together.
        devices: from `topology_devices`.
        chip: their kind, an entry of `CHIPS`.
        mode: which program.
        hlo: file for the text of the optimised program.

    Returns:
        A record. Sizes are bytes of one chip. `fits` is false if the compiler refused, and `refused` says why.
        `expected_seconds` is the largest of its terms, a lower bound: the time of a chip that does everything at once,
        at its peak. For GPUs the fields of `predict` follow.

    Raises:
        UserError: batch, model and mesh do not fit each other, or the file cannot be written.
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
    text = program.as_text()
    if text is None:
        raise RuntimeError("the compiled program has no text, from which its kernels could be read")
    if hlo is not None:
        with write_errors(hlo):
            write_bytes(hlo, text.encode())
    memory = _memory(program)
    record |= {
        "memory": memory,
        "compiled_memory_bytes": memory["peak"],
        "fits": memory["peak"] <= chip.hbm_bytes,
    }
    return record | _plan(config, mesh, chip, mode, parse(text), flops)


def _plan(config: Config, mesh: Mesh, chip: Chip, mode: Mode, module: Module, flops: float) -> Json:
    """Exchanges and expected time of the compiled program."""
    size = config.train.batch_size * config.model.num_images if mode == "train" else config.sampling.batch_size
    computed = flops * (FULL_REMAT if mode == "train" and config.model.remat == "full" else 1)
    machine = Machine(chip, mesh.size, _groups(config, mesh))
    terms = {"compute": computed / mesh.size / chip.flops} | machine.terms(module)
    record = {
        "flops_per_image": flops / size,
        "collectives": summary(list(collectives(module))),
        "expected_terms": terms,
        "expected_seconds": max(terms.values()),
        "expected_is": "lower bound",
    }
    return record | (predict(module, machine, flops, training=mode == "train") if chip in GPUS.values() else {})


def _groups(config: Config, mesh: Mesh) -> int:
    """How many slices of TPUs, or hosts of GPUs, a network joins."""
    devices = list(mesh.devices.flat)
    if devices[0].platform == "gpu":
        return len({device.process_index for device in devices})
    return num_slices(devices, config.mesh.dcn_data)


def _train(config: Config, mesh: Mesh) -> tuple[Callable[..., object], tuple[object, ...], float]:
    check_batch(config.train.batch_size // config.train.accumulation, mesh, "batch_size")
    state, tokenizer = abstract_state(config, mesh), weightless_tokenizer(config.tokenizer)
    arguments = state, batch_shapes(config, mesh), tokenizer, *frozen_shapes(config, mesh)
    flops = flops_per_image(config) * config.model.num_images * config.train.batch_size
    return jit_train_step(config, mesh, objective_of(config)), arguments, flops


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
