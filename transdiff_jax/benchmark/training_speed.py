"""Measures a training step: images per second, beside FLOPs counted by hand and a measured matmul peak.

Weights are random, those of a student's teacher too, and so are images (for the pixel tokenizer) or cached moments (for
KL-16, whose network does not run): no data is needed. What rematerialisation computes again does not count as useful
work.
"""

import functools
import statistics
import time

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import PyTree

from transdiff_jax.benchmark.flops import training_flops
from transdiff_jax.benchmark.measuring import (
    batch_shapes,
    compile_program,
    measure_peak,
    peak_memory,
    settings,
    weightless_tokenizer,
)
from transdiff_jax.benchmark.student_step import frozen_shapes, is_student, objective_of, student_flops
from transdiff_jax.config import Config
from transdiff_jax.images.uint8 import to_uint8
from transdiff_jax.model.needs import check_training_memory
from transdiff_jax.parallel.mesh import check_batch
from transdiff_jax.storage.files import Json
from transdiff_jax.training.state import TrainState, create_state
from transdiff_jax.training.step import Batch, TrainStep, jit_train_step


def benchmark_train(config: Config, mesh: Mesh, *, repetitions: int, flops_only: bool) -> Json:
    """Measures training steps of `config.train.batch_size` rows.

    Args:
        config: model and training settings.
        mesh: the devices.
        repetitions: timed steps, after one that is not timed; the median counts.
        flops_only: run nothing; measurements are None.

    Returns:
        A record.

    Raises:
        UserError: the batch, or the model, does not divide over the mesh.
    """
    check_batch(config.train.batch_size // config.train.accumulation, mesh, "batch_size")
    record = settings("train", config.model, mesh, config.train.batch_size) | {
        "accumulation": config.train.accumulation,
        "pairs_per_latent": config.loss.pairs_per_latent,
        "flops_per_image": flops_per_image(config),
    }
    if flops_only:
        return record
    check_training_memory(config, mesh)
    return record | _measure(config, mesh, repetitions, record["flops_per_image"])


def flops_per_image(config: Config) -> float:
    """Analytic FLOPs of a training step per image. An MRAR row has several images."""
    if is_student(config):
        return student_flops(config) / config.model.num_images
    row = training_flops(config.model, config.loss.pairs_per_latent, train_encoder=config.train.only == "all")
    return row / config.model.num_images


def _measure(config: Config, mesh: Mesh, repetitions: int, flops: float) -> Json:
    state, batch, tokenizer = (
        create_state(config, mesh),
        random_batch(config, mesh),
        weightless_tokenizer(config.tokenizer),
    )
    constants = (tokenizer, *random_arrays(frozen_shapes(config, mesh)))
    step = compile_program(jit_train_step(config, mesh, objective_of(config)), state, batch, *constants)
    times = timed_steps(lambda state, batch: step.call(state, batch, *constants), state, batch, 1 + repetitions)
    typical, peak = statistics.median(times[1:]), measure_peak(config.model.dtype)
    images_per_second = config.train.batch_size * config.model.num_images / typical
    return {
        "images_per_second": images_per_second,
        "seconds_per_step": typical,
        "peak_flops": peak,
        "mfu": flops * images_per_second / (peak * mesh.size),
        "peak_memory_bytes": peak_memory(mesh),
        "compiled_memory_bytes": step.memory_bytes,
        "compile_seconds": step.compile_seconds,
    }


def timed_steps(step: TrainStep, state: TrainState, batch: Batch, count: int) -> list[float]:
    """The seconds of each of `count` steps on the same batch. The state is donated."""
    times = []
    for _ in range(count):
        started = time.monotonic()
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))
        times.append(time.monotonic() - started)
    return times


def random_batch(config: Config, mesh: Mesh) -> Batch:
    """A global batch of `batch_shapes`: labels in their range, moments uniform in [-1, 1], images of any bytes."""
    shapes = batch_shapes(config, mesh)
    label = shapes.pop("label")
    draw = functools.partial(jax.random.randint, jax.random.key(1), label.shape, 0, config.model.num_classes)
    return random_arrays(shapes) | {"label": jax.jit(draw, out_shardings=label.sharding)()}


def random_arrays(shapes: PyTree) -> PyTree:
    """Arrays of these shapes and shardings: uniform in [-1, 1], or such images as bytes."""

    def draw(leaf: jax.ShapeDtypeStruct) -> Array:
        of_bytes = leaf.dtype == np.uint8
        values = jax.random.uniform(jax.random.key(0), leaf.shape, np.float32 if of_bytes else leaf.dtype, -1)
        return to_uint8(values) if of_bytes else values

    return jax.jit(lambda: jax.tree.map(draw, shapes), out_shardings=jax.tree.map(lambda leaf: leaf.sharding, shapes))()
