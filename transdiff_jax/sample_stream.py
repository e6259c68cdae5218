"""Samples that are scored and not written: one batch of images in memory, whatever their number."""

from collections.abc import Iterator

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from transdiff_jax import sharding
from transdiff_jax.checkpoint import Weights
from transdiff_jax.dispatch import dispatched
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.image_sets import ImageSet
from transdiff_jax.generation import SampleRequest, check_labels, sample_settings, sampler_arguments
from transdiff_jax.sampling import Sampler, make_sampler

KIND = "sampled here"


def sampled_images(
    weights: Weights, request: SampleRequest, mesh: Mesh, source: str, sampler: Sampler | None = None
) -> ImageSet:
    """A set of images that are sampled when it is read: the same as cli.sample writes for the same request.

    Args:
        weights: parameters, and the configuration with the sampling settings to use.
        request: which samples; the result of each alone is taken.
        mesh: the devices.
        source: what to call the set.
        sampler: of this configuration, where there is one already, since a new one compiles again.

    Raises:
        UserError: labels out of range, a batch that does not split over the devices, several processes.
    """
    if jax.process_count() > 1:
        raise UserError("samples are scored in one process only: write them with cli.sample and give --samples")
    check_labels(request, weights.config.model.num_classes)
    sharding.check_batch(weights.config.sampling.batch_size, mesh, "--batch_size")
    sampler = sampler or make_sampler(weights.config, mesh)
    record = {"settings": sample_settings(weights, request), "config": weights.config.to_dict()}
    return ImageSet(source, KIND, lambda: _sample(sampler, weights, request, mesh), record)


def _sample(sampler: Sampler, weights: Weights, request: SampleRequest, mesh: Mesh) -> Iterator[np.ndarray]:
    count, size = len(request.labels), weights.config.sampling.batch_size
    firsts = list(range(0, count, size))
    for first, made in dispatched(firsts, lambda first: sampler(*sampler_arguments(weights, request, mesh, first))):
        rows = min(size, count - first)
        finite = np.asarray(made.finite)[:rows]
        if not finite.all():
            raise UserError(
                f"sample {first + int(np.argmin(finite))} holds values that are not finite: the weights may be damaged "
                "or untrained, or overflow in config.model.dtype"
            )
        yield np.asarray(made.images)[:rows, -1]
        if (first // size) % 100 == 0:
            logging.info("sampled and scored %d of %d", first + rows, count)
