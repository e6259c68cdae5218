"""Measures scoring: images per second from pixels on the host, which are also digested, to features on the host.

Weights and pixels are random. No files are needed, and the values of pixels and weights do not change the time.
"""

import statistics
import time
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from transdiff_jax.evaluation.features import FeatureExtractor
from transdiff_jax.evaluation.inception.network import param_shapes
from transdiff_jax.evaluation.set_features import make_extractor
from transdiff_jax.parallel.memory import check_host
from transdiff_jax.storage.files import Json

_VARIANTS = 2  # batches of pixels, scored in turns


def benchmark_evaluate(mesh: Mesh, *, image_size: int, batch_size: int, repetitions: int) -> Json:
    """Measures the features that scores are made of, without the reading of image files.

    Args:
        mesh: the devices.
        image_size: side of the square images, pixels.
        batch_size: images at once, over all devices.
        repetitions: timed batches, after one that is not timed; the median counts.

    Returns:
        A record.

    Raises:
        UserError: the batch does not split evenly over the devices, or fits no memory.
    """
    extractor = make_extractor(_random_params(), mesh, batch_size)
    check_host(
        "the benchmark", {"images": _VARIANTS * batch_size * image_size**2 * 3}, "lower --batch_size or --image_size"
    )
    draw = np.random.default_rng(0)
    batches = [draw.integers(0, 256, (batch_size, image_size, image_size, 3), np.uint8) for _ in range(_VARIANTS)]
    started = time.monotonic()
    _run(extractor, iter(batches[:1]))
    first_seconds = time.monotonic() - started
    seconds = list(_times(extractor, batches, repetitions))
    stats = mesh.devices.flat[0].memory_stats() or {}
    per_batch = statistics.median(seconds)
    return {
        "what": "evaluate",
        "device": mesh.devices.flat[0].device_kind,
        "devices": mesh.size,
        "jax": jax.__version__,
        "batch_size": batch_size,
        "image_size": image_size,
        "images": repetitions * batch_size,
        "images_per_second": batch_size / per_batch,
        "seconds_per_batch": per_batch,
        "seconds": sum(seconds),
        "compile_seconds": first_seconds - per_batch,
        "peak_memory_bytes": stats.get("peak_bytes_in_use"),
    }


def _random_params() -> dict:
    """Weights that keep activations finite: variances are one, and products are small."""
    draw = np.random.default_rng(0)

    def fill(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key in ("scale", "variance"):
            return np.ones(leaf.shape, np.float32)
        return (draw.standard_normal(leaf.shape) / max(1, np.prod(leaf.shape[:-1])) ** 0.5).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, param_shapes())


def _times(extractor: FeatureExtractor, batches: list[np.ndarray], repetitions: int) -> Iterator[float]:
    """The seconds of each batch."""
    for repetition in range(repetitions):
        started = time.monotonic()
        _run(extractor, iter([batches[repetition % len(batches)]]))
        yield time.monotonic() - started


def _run(extractor: FeatureExtractor, batches: Iterator[np.ndarray]) -> None:
    for _ in extractor(batches):
        pass
