"""Samples that are scored without being written: memory holds one batch of images, however many there are."""

from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import UInt8

from transdiff_jax.checkpoints.weights import Weights
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.features import Images
from transdiff_jax.evaluation.image_sets import ImageSet
from transdiff_jax.evaluation.set_features import KEPT_BYTES
from transdiff_jax.generation.request import SampleRequest, check_labels, sample_settings
from transdiff_jax.generation.sample_batches import sample_batches
from transdiff_jax.model.needs import check_sampling_memory
from transdiff_jax.parallel.arrays import replicated
from transdiff_jax.parallel.memory import check_host
from transdiff_jax.parallel.mesh import check_batch
from transdiff_jax.parallel.progress import Progress
from transdiff_jax.sampling.sampler import Sampler, make_sampler

KIND = "sampled here"


def sampled_images(
    weights: Weights,
    request: SampleRequest,
    mesh: Mesh,
    source: str,
    sampler: Sampler | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> ImageSet:
    """A set of images that is sampled while it is read; `transdiff sample` writes the same images for this request.

    Args:
        weights: parameters, and the configuration with the sampling settings.
        request: which samples; only the last image of a sequence is scored.
        mesh: the devices.
        source: name of the set.
        sampler: an existing sampler of this configuration; a new one would compile again.
        stopped: called after each batch, with the same answer in all processes; when true, the set ends before that
            batch.

    Raises:
        UserError: a label is out of range, or a batch does not split over the devices.
    """
    check_labels(request, weights.config.model.num_classes)
    check_batch(weights.config.sampling.batch_size, mesh, "batch_size")
    check_sampling_memory(weights.config, mesh)
    check_host("scoring", {"features": len(request.labels) * KEPT_BYTES}, "score fewer samples")
    sampler = sampler or make_sampler(weights.config, mesh)
    record = {"settings": sample_settings(weights, request), "config": weights.config.to_dict()}

    def batches(size: int) -> Iterator[Images]:
        return _rebatch(_sample(sampler, weights, request, mesh, stopped), size)

    return ImageSet(source, KIND, batches, record)


def _sample(
    sampler: Sampler, weights: Weights, request: SampleRequest, mesh: Mesh, stopped: Callable[[], bool]
) -> Iterator[UInt8[np.ndarray, "n height width channels"]]:
    """Yields each batch of results, whole in every process: it is small, and the extractor splits rows differently."""
    count, size = len(request.labels), weights.config.sampling.batch_size
    everywhere = jax.jit(lambda made: (made.images[:, -1], made.finite), out_shardings=replicated(mesh))
    progress = Progress("sampled and scored", "images", count)
    for first, made in sample_batches(sampler, weights, request):
        rows = min(size, count - first)
        images, finite = (np.asarray(array)[:rows] for array in everywhere(made))
        if not finite.all():
            raise UserError(
                f"sample {first + int(np.argmin(finite))} holds values that are not finite: the weights may be damaged "
                "or untrained, or overflow in config.model.dtype"
            )
        if stopped():
            return
        yield images
        progress.add(rows)


def _rebatch(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yields the same rows in batches of `size`; the last may be smaller."""
    pending: list[np.ndarray] = []
    count = 0
    for piece in pieces:
        pending.append(piece)
        count += len(piece)
        while count >= size:
            rows = np.concatenate(pending)
            yield rows[:size]
            pending, count = [rows[size:]], count - size
    if count:
        yield np.concatenate(pending)
