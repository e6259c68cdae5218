"""Makes the samples of a request in batches, with the device always one batch ahead of the host."""

from collections.abc import Iterator

import numpy as np

from transdiff_jax.checkpoints.weights import Weights
from transdiff_jax.generation.request import SampleRequest
from transdiff_jax.parallel.lookahead import dispatched
from transdiff_jax.parallel.row_batches import padded_batches
from transdiff_jax.sampling.sampler import Sampler, Samples


def request_rows(request: SampleRequest, rows: np.ndarray) -> np.ndarray:
    """The labels of some samples as a sampler takes them: int32 [b], or [b, 2] for fused classes."""
    labels = np.array(request.labels, np.int32)[rows]
    if request.fuse_with is None:
        return labels
    return np.stack([labels, np.full_like(labels, request.fuse_with)], axis=1)


def sample_batches(
    sampler: Sampler,
    weights: Weights,
    request: SampleRequest,
    *,
    wanted: np.ndarray | None = None,
    indices: np.ndarray | None = None,
) -> Iterator[tuple[int, Samples]]:
    """Yields batches in turn, each with the number of its first sample, after the next one is dispatched.

    Args:
        sampler: for the weights' configuration.
        weights: parameters, and the batch size.
        request: which samples.
        wanted: bool [samples]; a batch without a wanted sample is skipped.
        indices: sample indices [samples], on which the noise depends; None counts from 0.
    """
    count, size = len(request.labels), weights.config.sampling.batch_size

    def run(rows: np.ndarray) -> Samples:
        labels, numbers = request_rows(request, rows), rows if indices is None else indices[rows]
        return sampler(weights.params, labels, request.seed, numbers)

    batches = (batch for batch in padded_batches(count, size) if wanted is None or wanted[batch].any())
    for rows, made in dispatched(batches, run):
        yield int(rows[0]), made
