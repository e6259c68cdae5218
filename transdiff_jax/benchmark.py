"""How fast sampling is: measured images per second, beside FLOPs counted by hand and a measured matmul peak.

Random weights, latents only: neither a trained run nor a tokenizer is needed, and neither would change the time.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from transdiff_jax import sharding
from transdiff_jax.conditions import classes_encoded
from transdiff_jax.config import Config
from transdiff_jax.flops import NAIVE, evaluations, sample_flops, sample_flops_by_saving
from transdiff_jax.model.transdiff import Params, TransDiff, init_params
from transdiff_jax.naive_sampling import naive_latents
from transdiff_jax.sampling import SeededNoise, jit_over_rows, sample_latents

Array = jax.Array

IMAGES_PER_CLASS = 50  # labels are those of a published set, in its order
PEAK_SIZE = {"cpu": 2048}  # side of the matrices whose product shows the peak
ACCELERATOR_PEAK_SIZE = 8192
PEAK_REPETITIONS = 10


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled sampler, ready to run."""

    run: Callable[[], Array]
    compile_seconds: float
    memory_bytes: int | None  # arguments, result and temporaries of one device, as the compiler plans them


def benchmark_sample(
    config: Config, mesh: Mesh, *, repetitions: int, compare_naive: bool, flops_only: bool
) -> dict[str, Any]:
    """One record of sampling batches of `config.sampling.batch_size`.

    Args:
        config: model and sampling settings.
        mesh: the devices.
        repetitions: timed batches of each sampler, after one that is not; the median counts.
        compare_naive: time the sampler that shares nothing too, in turns with the other.
        flops_only: run nothing; measurements are None.
    """
    sharding.check_batch(config.sampling.batch_size, mesh, "--batch_size")
    record = _settings(config, mesh) | _flops(config, mesh)
    measured = dict.fromkeys(
        (
            *("images_per_second", "seconds_per_step", "seconds_per_batch", "peak_flops", "mfu"),
            *("peak_memory_bytes", "compiled_memory_bytes", "compile_seconds"),
            *("naive_images_per_second", "naive_compiled_memory_bytes", "speedup"),
        )
    )
    if not flops_only:
        measured |= _measure(config, mesh, repetitions, compare_naive, record["flops_per_image"])
    return record | measured


def labels_of(config: Config) -> np.ndarray:
    """Classes of the first batch of a published set: each IMAGES_PER_CLASS times, in order."""
    return (np.arange(config.sampling.batch_size) // IMAGES_PER_CLASS % config.model.num_classes).astype(np.int32)


def measure_peak(dtype: str) -> float:
    """FLOP per second of one device in a large matrix product of the compute dtype, the best of some."""
    size = PEAK_SIZE.get(jax.default_backend(), ACCELERATOR_PEAK_SIZE)
    matrix = jax.random.normal(jax.random.key(0), (size, size), jnp.dtype(dtype))
    product = jax.jit(jnp.matmul)
    seconds = [_seconds(lambda: product(matrix, matrix)) for _ in range(1 + PEAK_REPETITIONS)]
    return 2 * size**3 / min(seconds[1:])


def _settings(config: Config, mesh: Mesh) -> dict[str, Any]:
    device = mesh.devices.flat[0]
    return {
        "what": "sample",
        "device": device.device_kind,
        "devices": mesh.size,
        "jax": jax.__version__,
        "batch_size": config.sampling.batch_size,
        "images_per_class": IMAGES_PER_CLASS,
        "model": dataclasses.asdict(config.model),
        "sampling": dataclasses.asdict(config.sampling),
    }


def _flops(config: Config, mesh: Mesh) -> dict[str, Any]:
    """Analytic FLOPs of an image, which is a whole sequence in MRAR."""
    labels, model, sampling = labels_of(config), config.model, config.sampling
    guided = any(evaluations(image)[0] for image in sampling.of_images(model.num_images))
    classes = classes_encoded(labels, sharding.batch_shards(mesh), with_null=guided) / len(labels)
    return {
        "flops_per_image": sample_flops(model, sampling, classes_per_sample=classes),
        "naive_flops_per_image": sample_flops(model, sampling, NAIVE),
        "flops_by_saving": sample_flops_by_saving(model, sampling, classes),
    }


def _measure(config: Config, mesh: Mesh, repetitions: int, compare_naive: bool, flops: float) -> dict[str, Any]:
    size, sampling = config.sampling.batch_size, config.sampling
    params = _random_params(config, mesh)
    cached = _compile(config, mesh, params, naive=False)
    naive = _compile(config, mesh, params, naive=True) if compare_naive else None
    samplers = [cached.run] if naive is None else [cached.run, naive.run]
    # In turns, so that what else the machine does falls on both.
    rounds = [[_seconds(run) for run in samplers] for _ in range(1 + repetitions)][1:]
    seconds, *naive_seconds = (statistics.median(times) for times in zip(*rounds, strict=True))
    peak = measure_peak(config.model.dtype)
    measured = {
        "images_per_second": size / seconds,
        "seconds_per_batch": seconds,
        "seconds_per_step": seconds / sum(image.steps for image in sampling.of_images(config.model.num_images)),
        "peak_flops": peak,
        "mfu": flops * size / seconds / (peak * mesh.size),
        "compiled_memory_bytes": cached.memory_bytes,
        "compile_seconds": cached.compile_seconds,
    }
    if naive is None:  # otherwise the device's peak may be the other sampler's
        stats = mesh.devices.flat[0].memory_stats() or {}
        return measured | {"peak_memory_bytes": stats.get("peak_bytes_in_use")}
    return measured | {
        "naive_images_per_second": size / naive_seconds[0],
        "naive_compiled_memory_bytes": naive.memory_bytes,
        "speedup": statistics.median(slow / fast for fast, slow in rounds),
    }


def _random_params(config: Config, mesh: Mesh) -> Params:
    boxed = jax.eval_shape(lambda: init_params(config.model, 0))
    make = jax.jit(lambda: nn.unbox(init_params(config.model, 0)), out_shardings=sharding.tree_shardings(boxed, mesh))
    return make()


def _compile(config: Config, mesh: Mesh, params: Params, *, naive: bool) -> Compiled:
    model = TransDiff(config.model, unroll=True)

    def sample(params: Params, labels: Array, seed: Array, indices: Array) -> Array:
        noise = SeededNoise(seed, indices)
        if naive:
            return naive_latents(model, params, labels, noise, config.sampling)
        return sample_latents(model, params, labels, noise, config.sampling, sharding.batch_shards(mesh))

    indices = np.arange(config.sampling.batch_size, dtype=np.int32)
    batch = jax.device_put((labels_of(config), indices), sharding.batch_sharding(mesh))
    arguments = params, batch[0], np.int32(0), batch[1]
    started = time.monotonic()
    program = jit_over_rows(sample, mesh).lower(*arguments).compile()
    seconds = time.monotonic() - started
    plan = program.memory_analysis()
    planned = None
    if plan is not None:
        planned = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
    return Compiled(lambda: program(*arguments), seconds, planned)


def _seconds(run: Callable[[], Array]) -> float:
    started = time.monotonic()
    jax.block_until_ready(run())
    return time.monotonic() - started
