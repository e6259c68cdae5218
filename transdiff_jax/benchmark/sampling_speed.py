"""Measures sampling: images per second, beside FLOPs counted by hand and a measured matmul peak.

The weights are random, and only latents are sampled. A trained run would not change the time. Decoding to pixels is
timed apart, on request.
"""

import dataclasses
import functools
import statistics

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.stages import Wrapped
from jaxtyping import Float, Int

from transdiff_jax.benchmark.decoding_speed import decoding_seconds
from transdiff_jax.benchmark.flops import NAIVE, evaluations, sample_flops, sample_flops_by_part, sample_flops_by_saving
from transdiff_jax.benchmark.measuring import Compiled, compile_program, measure_peak, peak_memory, seconds, settings
from transdiff_jax.benchmark.tokenizer_flops import decode_flops
from transdiff_jax.config import Config
from transdiff_jax.model.mesh_checks import check_implementation
from transdiff_jax.model.needs import check_sampling_memory
from transdiff_jax.model.params import Params, init_sharded_params
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.parallel.arrays import batch_sharding
from transdiff_jax.parallel.mesh import batch_shards, check_batch
from transdiff_jax.sampling.conditions import classes_encoded
from transdiff_jax.sampling.mrar import sample_latents
from transdiff_jax.sampling.naive import naive_latents
from transdiff_jax.sampling.noise import SeededNoise
from transdiff_jax.sampling.sampler import jit_over_rows
from transdiff_jax.storage.files import Json

IMAGES_PER_CLASS = 50  # labels are those of a published set, in order


def benchmark_sample(
    config: Config, mesh: Mesh, *, repetitions: int, compare_naive: bool = False, decode: bool = False, flops_only: bool
) -> Json:
    """Measures the sampling of batches of `config.sampling.batch_size`.

    Args:
        config: model and sampling settings.
        mesh: the devices.
        repetitions: timed batches of each sampler, after one that is not timed; the median counts.
        compare_naive: also time the sampler that shares no work, in turns with the other.
        decode: also time the decoding of a batch to pixels, which the speed of the sampler leaves out.
        flops_only: run nothing; measurements are None.

    Returns:
        A record.

    Raises:
        UserError: the batch, or the model, does not divide over the mesh.
    """
    check_batch(config.sampling.batch_size, mesh, "batch_size")
    record = settings("sample", config.model, mesh, config.sampling.batch_size) | {
        "images_per_class": IMAGES_PER_CLASS,
        "sampling": dataclasses.asdict(config.sampling),
        **_flops(config, mesh),
    }
    measured = dict.fromkeys(
        ("seconds_per_batch", "naive_images_per_second", "naive_compiled_memory_bytes", "speedup", "decode_seconds")
    )
    if not flops_only:
        check_sampling_memory(config, mesh)
        measured |= _measure(config, mesh, repetitions, compare_naive, record["flops_per_image"])
        measured["decode_seconds"] = decoding_seconds(config, mesh, repetitions) if decode else None
    return record | measured


def labels_of(config: Config) -> Int[np.ndarray, " b"]:
    """Classes of the first batch of a published set: each class IMAGES_PER_CLASS times, in order."""
    return (np.arange(config.sampling.batch_size) // IMAGES_PER_CLASS % config.model.num_classes).astype(np.int32)


def _flops(config: Config, mesh: Mesh) -> Json:
    """Analytic FLOPs of one image, which is a whole sequence in MRAR; `whole_image_flops` with decoding to pixels."""
    labels, model, sampling = labels_of(config), config.model, config.sampling
    guided = any(evaluations(image, model.flow_map)[0] for image in sampling.of_images(model.num_images))
    classes = classes_encoded(labels, batch_shards(mesh), with_null=guided) / len(labels)
    parts = sample_flops_by_part(model, sampling, classes_per_sample=classes)
    parts["tokenizer"] = float(decode_flops(config))
    return {
        "whole_image_flops": sum(parts.values()),
        "flops_by_part": parts,
        "flops_per_image": sample_flops(model, sampling, classes_per_sample=classes),
        "naive_flops_per_image": sample_flops(model, sampling, NAIVE),
        "flops_by_saving": sample_flops_by_saving(model, sampling, classes),
    }


def _measure(config: Config, mesh: Mesh, repetitions: int, compare_naive: bool, flops: float) -> Json:
    size, sampling = config.sampling.batch_size, config.sampling
    params = init_sharded_params(config.model, 0, mesh)
    cached = _compile(config, mesh, params, naive=False)
    naive = _compile(config, mesh, params, naive=True) if compare_naive else None
    samplers = [cached.call] if naive is None else [cached.call, naive.call]
    # In turns, so that other load on the machine falls on both.
    rounds = [[seconds(run) for run in samplers] for _ in range(1 + repetitions)][1:]
    typical, *naive_seconds = (statistics.median(times) for times in zip(*rounds, strict=True))
    peak = measure_peak(config.model.dtype)
    measured = {
        "images_per_second": size / typical,
        "seconds_per_batch": typical,
        "seconds_per_step": typical / sum(image.steps for image in sampling.of_images(config.model.num_images)),
        "peak_flops": peak,
        "mfu": flops * size / typical / (peak * mesh.size),
        "compiled_memory_bytes": cached.memory_bytes,
        "compile_seconds": cached.compile_seconds,
    }
    if naive is None:  # with both, the device's peak may be that of the naive sampler
        return measured | {"peak_memory_bytes": peak_memory(mesh)}
    return measured | {
        "naive_images_per_second": size / naive_seconds[0],
        "naive_compiled_memory_bytes": naive.memory_bytes,
        "speedup": statistics.median(slow / fast for fast, slow in rounds),
    }


def batch_flops(config: Config, mesh: Mesh) -> float:
    """Analytic FLOPs of sampling one batch."""
    return _flops(config, mesh)["flops_per_image"] * config.sampling.batch_size


def jit_sampler(config: Config, mesh: Mesh, *, naive: bool) -> Wrapped:
    """The jitted sampler of latents, a function of parameters, labels, the seed and sample indices."""
    check_implementation(config.model, mesh, training=False)
    model = TransDiff(config.model)

    def sample(
        params: Params, labels: Int[Array, " b"], seed: Int[Array, ""], indices: Int[Array, " b"]
    ) -> Float[Array, "b images h w c"]:
        noise = SeededNoise(seed, indices)
        if naive:
            return naive_latents(model, params, labels, noise, config.sampling)
        return sample_latents(model, params, labels, noise, config.sampling)

    return jit_over_rows(sample, mesh)


def _compile(config: Config, mesh: Mesh, params: Params, *, naive: bool) -> Compiled:
    indices = np.arange(config.sampling.batch_size, dtype=np.int32)
    labels, indices = jax.device_put((labels_of(config), indices), batch_sharding(mesh))
    arguments = params, labels, np.int32(0), indices
    program = compile_program(jit_sampler(config, mesh, naive=naive), *arguments)
    return dataclasses.replace(program, call=functools.partial(program.call, *arguments))
