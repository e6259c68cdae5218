"""Generates sample sets, such as fifty thousand images, on any devices and processes; safe to kill at any moment.

Samples are computed in batches of consecutive indices, which are the same after a restart: with the same batch size and
devices, a remade file has the same bytes. Each process writes the rows that its own devices computed. sample_files.py
describes the folder.
"""

import collections
import contextlib
import dataclasses
import functools
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from absl import logging
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from transdiff_jax.checkpoints.weights import Weights
from transdiff_jax.errors import UserError
from transdiff_jax.generation.archive_writer import ArchiveWriter
from transdiff_jax.generation.image_writer import ImageWriter
from transdiff_jax.generation.references import encode_on, reference_pictures, with_references
from transdiff_jax.generation.request import SampleRequest, check_labels, sample_settings
from transdiff_jax.generation.sample_batches import request_rows, sample_batches
from transdiff_jax.generation.sample_files import FORMATS, GRID, PROGRESS, image_path
from transdiff_jax.generation.sample_reader import SampleReader
from transdiff_jax.generation.sample_set import SampleSet
from transdiff_jax.images.grids import grid, name_rows
from transdiff_jax.images.png import decode_png, save_png
from transdiff_jax.model.needs import check_sampling_memory
from transdiff_jax.parallel.arrays import own_rows
from transdiff_jax.parallel.machine import describe_machine
from transdiff_jax.parallel.mesh import check_batch
from transdiff_jax.parallel.processes import do_in_first_process, in_first_process
from transdiff_jax.parallel.profiling import Profile, Profiler
from transdiff_jax.parallel.progress import Progress
from transdiff_jax.parallel.row_batches import padded_batches
from transdiff_jax.parallel.shared_folders import check_shared
from transdiff_jax.sampling.sampler import Sampler, Samples, make_sampler
from transdiff_jax.sampling.semantic_similarity import class_similarities, fused_similarities
from transdiff_jax.storage.bucket_path import BucketPath
from transdiff_jax.storage.files import Json, write_errors

GRID_ROWS, GRID_COLUMNS = 10, 10
MAX_NAME = 24  # letters of a class's name in the grid
_SIMILARITY = "semantic_similarity"  # in the record


def generate_samples(
    weights: Weights,
    request: SampleRequest,
    out: Path,
    mesh: Mesh,
    profile: Profile | None = None,
    image_format: str | None = None,
) -> Json:
    """Makes the samples that are missing in a folder; every process of the job must call this.

    Args:
        weights: parameters, and the configuration with the sampling settings to use.
        request: which samples.
        out: the folder, which all processes must see.
        mesh: the devices.
        profile: which batches to trace, counted from the first that this call makes; None: none.
        image_format: "png", a file for each image, or "zip", an archive for each 1,000 samples; None: zip in a bucket,
            png elsewhere.

    Returns:
        The record written to samples.json.

    Raises:
        UserError: a label is out of range, the folder cannot be used or holds samples of other settings, or a file
            cannot be written. If another process fails, JAX may end this one.
    """
    config, count = weights.config, len(request.labels)
    check_labels(request, config.model.num_classes)
    check_batch(config.sampling.batch_size, mesh, "batch_size")
    check_sampling_memory(config, mesh)
    sampler = make_sampler(config, mesh, all_images=request.all_images)
    pictures = reference_pictures(request.references, config)
    request = dataclasses.replace(request, references=pictures)  # so that files are read once
    sampler = with_references(sampler, pictures, encode_on(mesh))
    check_shared(out, "out")
    images = config.model.num_images if request.all_images else 1
    with contextlib.closing(SampleSet(out, count, images, archives=_in_archives(out, image_format))) as samples:
        _complete(sampler, weights, request, samples, mesh, profile)
        logging.info("%d samples are in %s", count, out)
        return samples.read_record()


def _complete(
    sampler: Sampler,
    weights: Weights,
    request: SampleRequest,
    samples: SampleSet,
    mesh: Mesh,
    profile: Profile | None,
) -> None:
    config, count = weights.config, len(request.labels)
    details = {"config": config.to_dict()}
    run = describe_machine(mesh) | {"batch_size": config.sampling.batch_size, "attention": config.model.attention}
    todo = in_first_process(
        lambda: np.append(samples.open(sample_settings(weights, request), details, run), samples.lacks(_SIMILARITY)),
        count + 1,
    )
    measured: Json = {}
    if request.semantic_similarity and todo[-1]:
        measured = {_SIMILARITY: _semantic_similarity(weights, request, mesh)}
    figures = _sample_missing(sampler, weights, request, samples, todo[:-1], profile)
    finish = functools.partial(
        samples.finish,
        figures,
        measured,
        npz=request.npz,
        channels=config.data.image_channels,
        draw=functools.partial(_draw_grid, samples.folder, weights, request),
    )
    do_in_first_process(finish)


def _in_archives(out: Path, image_format: str | None) -> bool:
    if image_format not in (None, *FORMATS):
        raise UserError(f"format={image_format!r} must be one of {', '.join(FORMATS)}")
    in_bucket = isinstance(out, BucketPath)
    if in_bucket and image_format == "png":
        raise UserError(f"out={out}: a bucket takes a request for each file: give --format=zip, or a local folder")
    return in_bucket or image_format == "zip"


def _writer(samples: SampleSet, missing: np.ndarray) -> ImageWriter | ArchiveWriter:
    """What writes this process's files of the missing samples."""
    if not samples.archives:
        return ImageWriter(samples.folder, PROGRESS)
    expected: collections.Counter[str] = collections.Counter()
    for index in np.flatnonzero(missing).tolist():
        (archive,) = samples.names(index)
        expected[archive] += len(samples.images(index))
    own = list(expected)[jax.process_index() :: jax.process_count()]
    return ArchiveWriter(samples.folder, {archive: expected[archive] for archive in own})


def _sample_missing(
    sampler: Sampler,
    weights: Weights,
    request: SampleRequest,
    samples: SampleSet,
    missing: np.ndarray,
    profile: Profile | None,
) -> Json:
    """Samples and writes; returns the count and the times."""
    size, total = weights.config.sampling.batch_size, int(missing.sum())
    figures: Json = {"images_made": total, "seconds": 0.0, "compile_seconds": 0.0, "images_per_second": None}
    if not total:
        return figures
    batches = sum(bool(missing[rows].any()) for rows in padded_batches(len(missing), size))
    profiler = Profiler(profile, "batches", batches)
    started = time.monotonic()
    first_rows = next(padded_batches(len(missing), size))
    compiled = sampler.compile(weights.params, request_rows(request, first_rows), request.seed, first_rows)
    figures["compile_seconds"] = time.monotonic() - started
    do_in_first_process(lambda: samples.begin(figures))
    progress = Progress("sampled", "images", total)
    with _writer(samples, missing) as writer, profiler:
        for first, made in sample_batches(compiled, weights, request, wanted=missing):
            samples.check_lock()
            writer.write(_files(made, first, samples, missing))
            progress.add(int(missing[first : first + size].sum()))
            profiler.step(made)
    multihost_utils.sync_global_devices("all samples are written")
    seconds = progress.finish()
    return figures | {"seconds": seconds + figures["compile_seconds"], "images_per_second": total / seconds}


def _semantic_similarity(weights: Weights, request: SampleRequest, mesh: Mesh) -> dict[str, float]:
    """The similarity of semantic tokens (lower is more diverse) for each class, and its mean over fused samples."""
    config, params = weights.config, weights.params
    fused = () if request.fuse_with is None else (request.fuse_with,)
    classes = np.unique((*request.labels, *fused))
    size = config.sampling.batch_size
    values = class_similarities(config.model, params, mesh, classes, size)
    report = {str(label): round(float(value), 6) for label, value in zip(classes, values, strict=True)}
    logging.info("mean cosine similarity of semantic tokens: %.4f over %d classes", values.mean(), len(classes))
    if fused:
        indices, fraction = np.arange(min(len(request.labels), size)), config.sampling.fuse_fraction
        pairs = request_rows(request, indices)
        values = fused_similarities(config.model, params, mesh, pairs, request.seed, indices, fraction, size)
        report["fused"] = float(values.mean())
        logging.info("the same of fused features: %.4f over %d samples", report["fused"], len(indices))
    return report


def _files(made: Samples, first: int, samples: SampleSet, missing: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yields names and missing images of this process's part of a batch, or of all for archives. Waits for the device.

    An archive holds rows of all processes, so that its bytes do not depend on their number.
    """
    rows = _all_rows if samples.archives else own_rows
    for (row, sequence), (_, finite) in zip(rows(made.images), rows(made.finite), strict=True):
        index = first + row
        if index < len(missing) and missing[index]:
            if not finite:
                raise UserError(
                    f"sample {index} holds values that are not finite: the weights may be damaged or untrained, or "
                    "overflow in config.model.dtype; earlier samples are kept"
                )
            yield from zip(samples.images(index), sequence, strict=True)


def _all_rows(array: Array) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the numbers and rows of a batch. Every process must call this."""
    return enumerate(np.asarray(multihost_utils.process_allgather(array, tiled=True)))


def _draw_grid(out: Path, weights: Weights, request: SampleRequest, reader: SampleReader) -> None:
    """Draws a row for each of the first classes, named after it, with its first samples."""
    channels = weights.config.data.image_channels
    of_class: dict[int, list[int]] = {}
    for index, label in enumerate(request.labels):
        of_class.setdefault(label, []).append(index)
    shown = dict(list(of_class.items())[:GRID_ROWS])
    columns = min(GRID_COLUMNS, *(len(indices) for indices in shown.values()))
    names = [image_path(Path(), index).as_posix() for indices in shown.values() for index in indices[:columns]]
    images = np.stack([decode_png(reader.read(name), channels) for name in names])
    picture = grid(images, len(shown), scale=max(1, 32 // images.shape[1]))
    with write_errors(out / GRID):
        save_png(out / GRID, name_rows(picture, [_row_name(label, weights, request) for label in shown]))


def _row_name(label: int, weights: Weights, request: SampleRequest) -> str:
    """The first of a class's names, or its number if no name is known; for fused classes, both."""
    classes = (label,) if request.fuse_with is None else (label, request.fuse_with)
    names = weights.class_names
    return " + ".join(names[index].split(",")[0][:MAX_NAME] if names else str(index) for index in classes)
