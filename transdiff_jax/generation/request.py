"""What to sample, and what decides the images."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from transdiff_jax.checkpoints.weights import Weights
from transdiff_jax.config import ModelConfig
from transdiff_jax.errors import UserError
from transdiff_jax.parallel.arrays import from_whole, replicate
from transdiff_jax.tokenizer.kl16_weights import weights_digest

Array = jax.Array


def balanced_labels(num_samples: int, config: ModelConfig) -> list[int]:
    """Classes in order, equally often (to within one), as published scores are made.

    The first num_samples % num_classes classes come once more than the others.
    """
    share, extra = divmod(num_samples, config.num_classes)
    return [label for label in range(config.num_classes) for _ in range(share + (label < extra))]


@dataclasses.dataclass(frozen=True)
class SampleRequest:
    """What to sample."""

    labels: tuple[int, ...]  # class of sample 0, 1, …
    seed: int
    fuse_with: int | None = None  # class whose semantic features are spliced into those of `labels`
    all_images: bool = False  # also write the earlier images of each MRAR sequence
    npz: bool = False  # also write all results as one array


def check_labels(request: SampleRequest, num_classes: int) -> None:
    """Raises a UserError for classes that the model does not have, or for no samples at all."""
    if not request.labels:
        raise UserError("no samples were asked for: give at least one label")
    fused = () if request.fuse_with is None else (request.fuse_with,)
    for label in (*request.labels, *fused):
        if not 0 <= label < num_classes:
            flag = "--fuse" if fused else "--labels"
            raise UserError(f"{flag}: class {label} does not exist; this model has classes 0 to {num_classes - 1}")


def sample_settings(weights: Weights, request: SampleRequest) -> dict[str, Any]:
    """What decides the images, to within rounding: not the batch size, nor how a batch is decoded."""
    sampling = dataclasses.asdict(weights.config.sampling)
    del sampling["batch_size"]
    if request.fuse_with is None:
        del sampling["fuse_fraction"]
    tokenizer = dataclasses.asdict(weights.config.tokenizer)
    del tokenizer["slice_size"]
    folder = tokenizer.pop("weights")
    if weights.config.tokenizer.kind != "pixels":
        tokenizer["sha256"] = weights_digest(folder)  # the weights, wherever they are
    return {
        "checkpoint_sha256": weights.digest,
        "step": weights.step,
        "weights": weights.name,
        "tokenizer": tokenizer,
        "seed": request.seed,
        "sampling": sampling,
        "labels": list(request.labels),
        "fuse_with": request.fuse_with,
    }


def sampler_arguments(weights: Weights, request: SampleRequest, mesh: Mesh, first: int) -> tuple:
    """What the sampler takes for the batch that begins at a sample; a last batch is filled up with its last sample."""
    count = len(request.labels)
    indices = np.minimum(np.arange(first, first + weights.config.sampling.batch_size, dtype=np.int32), count - 1)
    labels = np.array(request.labels, np.int32)[indices]
    if request.fuse_with is not None:
        labels = np.stack([labels, np.full_like(labels, request.fuse_with)], axis=1)
    batch = from_whole({"labels": labels, "indices": indices}, mesh)
    seed = replicate(np.array(request.seed, np.int32), mesh)
    return weights.params, batch["labels"], seed, batch["indices"]
