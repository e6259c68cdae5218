"""Scoring in one call: from images to a certificate of their scores."""

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from transdiff_jax.config import MeshConfig
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.certificate import Certificate, make_certificate
from transdiff_jax.evaluation.features import FeatureExtractor, Images
from transdiff_jax.evaluation.image_sets import ImageSet, open_images
from transdiff_jax.evaluation.inception.weights import InceptionWeights, load_inception
from transdiff_jax.evaluation.protocols import PROTOCOLS, Protocol
from transdiff_jax.evaluation.reference_set import ReferenceSet, load_reference
from transdiff_jax.evaluation.scores import make_scores
from transdiff_jax.evaluation.set_features import collect, make_extractor
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.storage.paths import location


def evaluate(
    samples: str | Path | np.ndarray,
    *,
    reference: str | Path,
    inception: str | Path,
    protocol: str = "transdiff",
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Certificate:
    """Scores images and writes nothing. Every process of a job calls this, with the same images.

    Args:
        samples: images, uint8 [n, height, width, 1 or 3], or their path: a finished folder of samples, a folder of PNG
            and JPEG files, or a `.npz` with `arr_0`.
        reference: path of statistics (`.npz` of ADM, `.pt` of torch-fidelity), of a `.npz` of images, or of a folder of
            images.
        inception: folder of the converted Inception weights.
        protocol: "transdiff" or "adm".
        batch_size: images in one batch through Inception, over all devices; None for a default.
        mesh: the devices; None for all of them.

    Returns:
        The certificate, a JSON value: `scores` by name, `warnings`, and everything that the scores depend on. A score
        that cannot be computed is None; `not_computed` says why.

    Raises:
        UserError: the images, the reference or the weights cannot be used, or there is no such protocol.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"protocol={protocol!r} is not one of {', '.join(sorted(PROTOCOLS))}")
    mesh = make_mesh(MeshConfig()) if mesh is None else mesh
    images = _images_of(samples)
    weights = load_inception(location(inception, "inception"))
    extractor = make_extractor(weights.params, mesh, batch_size)
    found = load_reference(location(reference, "reference"), extractor)
    return certify(images, found, extractor, weights, PROTOCOLS[protocol], mesh)


def certify(
    images: ImageSet,
    reference: ReferenceSet,
    extractor: FeatureExtractor,
    inception: InceptionWeights,
    protocol: Protocol,
    mesh: Mesh,
) -> Certificate:
    """Scores a set of images; each image is read once.

    Raises:
        UserError: there are no images, an image cannot be read, or a feature is not finite.
    """
    features = collect(extractor, images.batches(extractor.batch_size), images.source)
    scores = make_scores(features, reference, protocol)
    return make_certificate(scores, protocol, images, features, reference, inception, mesh)


def _images_of(samples: str | Path | np.ndarray) -> ImageSet:
    if isinstance(samples, np.ndarray):
        return _images_in(samples)
    return open_images(location(samples, "samples"), "samples")


def _images_in(array: np.ndarray) -> ImageSet:
    if array.ndim != 4 or array.dtype != np.uint8 or array.shape[-1] not in (1, 3) or not len(array):
        raise UserError(
            f"samples must be uint8 [n, height, width, 1 or 3], not {array.dtype} {list(array.shape)}: give an "
            "array of images, or the path of a set"
        )
    return ImageSet("an array", "array", functools.partial(_array_batches, array))


def _array_batches(array: np.ndarray, size: int) -> Iterator[Images]:
    for first in range(0, len(array), size):
        yield array[first : first + size]
