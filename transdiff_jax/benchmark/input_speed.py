"""Measures how fast training rows arrive, beside how fast the training step takes them.

Rows pass through the training input as it is configured, from images or from cached latents, without a model.
"""

import contextlib
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from transdiff_jax.benchmark.measuring import peak_memory, settings
from transdiff_jax.benchmark.student_step import frozen_shapes, objective_of
from transdiff_jax.benchmark.training_speed import random_arrays, timed_steps
from transdiff_jax.config import Config
from transdiff_jax.data.pipeline import TrainingData
from transdiff_jax.model.needs import check_input_memory, check_training_memory
from transdiff_jax.parallel.arrays import to_global
from transdiff_jax.parallel.mesh import check_batch
from transdiff_jax.storage.files import Json
from transdiff_jax.training.state import create_state
from transdiff_jax.training.step import make_train_step

WARM_UP_BATCHES = 2  # in these, files are opened and threads started


def benchmark_data(config: Config, mesh: Mesh, *, repetitions: int, compare_train: bool) -> Json:
    """Measures the reading of batches of `config.train.batch_size` rows.

    Args:
        config: data, and with `compare_train` model and training settings.
        mesh: the devices.
        repetitions: timed batches. Rows that were read ahead before them count as read in them.
        compare_train: also time as many training steps, with random weights, on one batch that was read before.

    Returns:
        A record with `records_per_second` of this process's input (a row of MRAR holds several records) and
        `seconds_per_batch`; what was not measured is None. With `compare_train` also `images_per_second` and
        `seconds_per_step` of training, and `input_share`: the step's need over the input's supply. Above 1 the step
        has to wait.

    Raises:
        UserError: the batch fits no memory, or with `compare_train` does not divide over the mesh.
    """
    check_input_memory(config)
    if compare_train:
        check_batch(config.train.batch_size // config.train.accumulation, mesh, "batch_size")
        check_training_memory(config, mesh)
    record = settings("data", config.model, mesh, config.train.batch_size) | _settings(config)
    record |= _measure_input(config, repetitions)
    measured: Json = {"input_share": None}
    if compare_train:
        measured |= _measure_step(config, mesh, repetitions)
        measured["input_share"] = record["seconds_per_batch"] / measured["seconds_per_step"]
    return record | measured


def _settings(config: Config) -> Json:
    return {
        "num_images": config.model.num_images,
        "source": config.data.source,
        "read_threads": config.data.read_threads,
        "workers": config.data.workers,
        "data": dataclasses.asdict(config.data),
    }


def _read(config: Config, batches: int) -> tuple[dict[str, np.ndarray], float]:
    """The last batch, and the seconds of all batches after those of the warm-up."""
    with tempfile.TemporaryDirectory() as reports, contextlib.closing(TrainingData(config, Path(reports))) as data:
        for _ in range(WARM_UP_BATCHES - 1):
            next(data)
        batch = next(data)
        started = time.monotonic()
        for _ in range(batches):
            batch = next(data)
        return batch, time.monotonic() - started


def _measure_input(config: Config, batches: int) -> Json:
    batch, seconds = _read(config, batches)
    return {"records_per_second": batches * batch["index"].size / seconds, "seconds_per_batch": seconds / batches}


def _measure_step(config: Config, mesh: Mesh, repetitions: int) -> Json:
    local, _ = _read(config, 0)
    del local["index"]
    batch = to_global(local, mesh)
    frozen = random_arrays(frozen_shapes(config, mesh))
    step = make_train_step(config, mesh, objective_of(config), *frozen)
    seconds = timed_steps(step, create_state(config, mesh), batch, 1 + repetitions)
    typical = statistics.median(seconds[1:])
    return {
        "images_per_second": config.train.batch_size * config.model.num_images / typical,
        "seconds_per_step": typical,
        "peak_memory_bytes": peak_memory(mesh),
        "compile_seconds": seconds[0] - typical,
    }
