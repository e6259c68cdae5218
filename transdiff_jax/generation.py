"""Sample sets on disk: PNG files named by sample index, a grid, and a record of how they were made.

Layout of an output folder: images/000000.png … (the result of each sample), references/000000_1.png … (earlier
images of an MRAR sequence, on request), grid.png, samples.json. A sample depends on (weights, label, seed, index)
alone, so a job that was stopped goes on with the images that are missing.
"""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from transdiff_jax import sharding
from transdiff_jax.checkpoint import Weights
from transdiff_jax.errors import UserError
from transdiff_jax.files import write_json
from transdiff_jax.images import grid, load_png, save_png
from transdiff_jax.sampling import Sampler, make_sampler

RECORD = "samples.json"
IMAGES, REFERENCES = "images", "references"
GRID_ROWS, GRID_COLUMNS = 10, 10
LOG_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class SampleRequest:
    """What to sample."""

    labels: tuple[int, ...]  # class of sample 0, 1, …
    seed: int
    all_images: bool = False  # also write the earlier images of each MRAR sequence


def image_path(out: Path, index: int) -> Path:
    """Where the result of a sample is."""
    return out / IMAGES / f"{index:06d}.png"


def reference_path(out: Path, index: int, image: int) -> Path:
    """Where image number `image` (from 1) of a sample's MRAR sequence is, if it is not the last."""
    return out / REFERENCES / f"{index:06d}_{image}.png"


def generate(weights: Weights, request: SampleRequest, out: Path, mesh: Mesh) -> dict[str, Any]:
    """Samples all that is missing in `out`.

    Args:
        weights: parameters, and the configuration with the sampling settings to use.

    Returns:
        The record written to samples.json.

    Raises:
        UserError: labels out of range, a folder that cannot be used or that holds samples of other settings.
    """
    config = weights.config
    _check_labels(request.labels, config.model.num_classes)
    sharding.check_batch(config.sampling.batch_size, mesh, "--batch_size")
    record = _open(out, weights, request)
    missing = [index for index in range(len(request.labels)) if not _done(out, index, weights, request)]
    if not missing:
        logging.info("all %d samples are in %s: nothing to do", len(request.labels), out)
        return record
    seconds, compile_seconds = _sample_missing(weights, request, out, mesh, missing)
    record |= {
        "images_made": len(missing),  # by the last call; the figures below are of that call
        "seconds": seconds + compile_seconds,
        "compile_seconds": compile_seconds,
        "images_per_second": len(missing) / seconds,
    }
    save_png(out / "grid.png", _class_grid(out, request, config.data.image_channels))
    write_json(out / RECORD, record)
    logging.info("%d images, %.1f images/s, in %s", len(missing), record["images_per_second"], out)
    return record


def _check_labels(labels: tuple[int, ...], num_classes: int) -> None:
    if not labels:
        raise UserError("no samples were asked for: give at least one label")
    for label in labels:
        if not 0 <= label < num_classes:
            raise UserError(f"--labels: class {label} does not exist; this model has classes 0 to {num_classes - 1}")


def _open(out: Path, weights: Weights, request: SampleRequest) -> dict[str, Any]:
    """Creates the folder, or checks that what it holds is of the same request."""
    settings = {
        "checkpoint_sha256": weights.digest,
        "step": weights.step,
        "weights": weights.name,
        "seed": request.seed,
        "sampling": dataclasses.asdict(weights.config.sampling),
        "labels": list(request.labels),
    }
    del settings["sampling"]["batch_size"]  # a sample does not depend on it
    settings = json.loads(json.dumps(settings))
    try:
        (out / IMAGES).mkdir(parents=True, exist_ok=True)
        if request.all_images:
            (out / REFERENCES).mkdir(exist_ok=True)
        previous = json.loads((out / RECORD).read_text()) if (out / RECORD).exists() else None
    except (OSError, ValueError) as error:
        raise UserError(f"--out={out} cannot be used: {error}") from None
    if previous is None:
        if any((out / IMAGES).iterdir()):
            raise UserError(f"--out={out} holds images but no {RECORD}; choose an empty folder")
        previous = {"settings": settings}
        write_json(out / RECORD, previous)
    differing = [name for name in settings if previous["settings"].get(name) != settings[name]]
    if differing:
        raise UserError(f"--out={out} holds samples with other {', '.join(differing)}; choose another folder")
    return previous


def _done(out: Path, index: int, weights: Weights, request: SampleRequest) -> bool:
    earlier = range(1, weights.config.model.num_images) if request.all_images else ()
    return image_path(out, index).exists() and all(reference_path(out, index, k).exists() for k in earlier)


def _sample_missing(
    weights: Weights, request: SampleRequest, out: Path, mesh: Mesh, missing: list[int]
) -> tuple[float, float]:
    """Samples and writes; returns the seconds of sampling with writing, and of compiling."""
    size = weights.config.sampling.batch_size
    started = time.monotonic()
    sampler = _compile(weights, request, mesh, size)
    compile_seconds = time.monotonic() - started
    started = reported = time.monotonic()
    for first in range(0, len(missing), size):
        indices = missing[first : first + size]
        images = np.asarray(sampler(*_arguments(weights, request, mesh, indices, size)))
        for index, sequence in zip(indices, images, strict=False):  # the rest of a last batch is padding
            save_png(image_path(out, index), sequence[-1])
            if request.all_images:
                for number, image in enumerate(sequence[:-1], start=1):
                    save_png(reference_path(out, index, number), image)
        if time.monotonic() - reported > LOG_SECONDS:
            reported = time.monotonic()
            _log_progress(first + len(indices), len(missing), reported - started)
    return time.monotonic() - started, compile_seconds


def _compile(weights: Weights, request: SampleRequest, mesh: Mesh, size: int) -> Sampler:
    arguments = _arguments(weights, request, mesh, [0], size)
    return make_sampler(weights.config, mesh).lower(*arguments).compile()


def _arguments(weights: Weights, request: SampleRequest, mesh: Mesh, indices: list[int], size: int) -> tuple:
    """What the sampler takes for these samples, padded with copies of the last to the batch it was compiled for."""
    padded = np.array(indices + [indices[-1]] * (size - len(indices)), np.int32)
    labels = np.array(request.labels, np.int32)[padded]
    batch = sharding.to_global({"labels": labels, "indices": padded}, mesh)
    seed = jax.device_put(np.int32(request.seed), sharding.replicated(mesh))
    return weights.params, batch["labels"], seed, batch["indices"]


def _log_progress(done: int, total: int, seconds: float) -> None:
    rate = done / seconds
    logging.info("sampled %d of %d, %.1f images/s, ETA %.0f s", done, total, rate, (total - done) / rate)


def _class_grid(out: Path, request: SampleRequest, channels: int) -> np.ndarray:
    """One row for each of the first classes, with the first samples of each."""
    of_class: dict[int, list[int]] = {}
    for index, label in enumerate(request.labels):
        of_class.setdefault(label, []).append(index)
    shown = list(of_class.values())[:GRID_ROWS]
    columns = min(GRID_COLUMNS, min(len(indices) for indices in shown))
    images = [load_png(image_path(out, index), channels) for indices in shown for index in indices[:columns]]
    return grid(np.stack(images), len(shown), scale=max(1, 32 // images[0].shape[0]))
