"""Requests for samples, and the settings that decide the images."""

import dataclasses
import hashlib

from transdiff_jax.checkpoints.weights import Weights
from transdiff_jax.config.ranges import NUM_SAMPLES, SEEDS, check_range
from transdiff_jax.errors import UserError
from transdiff_jax.generation.references import Picture, reference_pictures
from transdiff_jax.storage.files import Json
from transdiff_jax.tokenizer.kl16_weights import weights_digest


def balanced_labels(num_samples: int, num_classes: int) -> list[int]:
    """Classes in order, each equally often to within one, as for the published scores.

    The first num_samples % num_classes classes come once more than the others.

    Raises:
        UserError: more samples than a request can list.
    """
    check_range(f"num_samples={num_samples}", num_samples, NUM_SAMPLES)
    share, extra = divmod(num_samples, num_classes)
    return [label for label in range(num_classes) for _ in range(share + (label < extra))]


@dataclasses.dataclass(frozen=True)
class SampleRequest:
    """Which samples to make, and which files to write."""

    labels: tuple[int, ...]  # class of sample 0, 1, …
    seed: int
    fuse_with: int | None = None  # class whose semantic features are spliced into those of `labels`
    all_images: bool = False  # also write the earlier images of each MRAR sequence
    npz: bool = False  # also write all results as one array
    semantic_similarity: bool = False  # also record how alike the semantic tokens of each class are
    references: tuple[Picture, ...] = ()  # pictures that each MRAR sequence begins with


def check_labels(request: SampleRequest, num_classes: int) -> None:
    """Raises a UserError if there are no labels, if the model does not have a class, or for a seed out of range."""
    if not request.labels:
        raise UserError("no samples were asked for: give at least one label")
    check_range(f"seed={request.seed}", request.seed, SEEDS)
    fused = () if request.fuse_with is None else (request.fuse_with,)
    for label in (*request.labels, *fused):
        if not 0 <= label < num_classes:
            name = "fuse_with" if fused else "labels"
            raise UserError(f"{name}: class {label} does not exist; this model has classes 0 to {num_classes - 1}")


def sample_settings(weights: Weights, request: SampleRequest) -> Json:
    """The settings that decide the images to within rounding, so without the sizes of batches and slices."""
    sampling: Json = dataclasses.asdict(weights.config.sampling)
    del sampling["batch_size"]
    if request.fuse_with is None:
        del sampling["fuse_fraction"]
    pictures = [hashlib.sha256(p.tobytes()).hexdigest() for p in reference_pictures(request.references, weights.config)]
    tokenizer: Json = dataclasses.asdict(weights.config.tokenizer)
    del tokenizer["slice_size"]
    folder = tokenizer.pop("weights")
    if weights.config.tokenizer.kind != "pixels":
        tokenizer["sha256"] = weights_digest(folder)  # of the weights, because their folder may move
    return {
        "checkpoint_sha256": weights.digest,
        "step": weights.step,
        "weights": weights.name,
        "dtype": weights.config.model.dtype,
        "tokenizer": tokenizer,
        "seed": request.seed,
        "sampling": sampling,
        "labels": list(request.labels),
        "fuse_with": request.fuse_with,
        **({"references": pictures} if pictures else {}),
    }
