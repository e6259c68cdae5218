"""What samples are compared with: statistics of a file, or a set of images whose features are made when asked for."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from transdiff_jax.evaluation.features import FeatureExtractor
from transdiff_jax.evaluation.image_sets import open_images
from transdiff_jax.evaluation.inception.network import WIDTHS
from transdiff_jax.evaluation.reference import Reference, read_reference
from transdiff_jax.evaluation.set_features import POOLED, SPATIAL, collect
from transdiff_jax.evaluation.statistics import Gaussian
from transdiff_jax.storage.checksums import sha256


class ReferenceSet(NamedTuple):
    """A reference, ready to be compared with."""

    source: str
    sha256: str  # of the file; of a folder, of the pixels of its images
    num_images: int | None  # whose features are there, or else that the statistics are of; None: not known
    pooled: Gaussian | None
    spatial: Gaussian | None
    features: np.ndarray | None  # "2048" [n, width]; None where there are statistics only
    pooled_images: int | None  # that `pooled` was fitted to, where it is known
    spatial_images: int | None  # the same of `spatial`


def load_reference(path: Path, extractor: FeatureExtractor) -> ReferenceSet:
    """Reads a reference; a file's own statistics count, and those of its images only where it has none (as ADM).

    Args:
        path: statistics (.npz, .pt), a `.npz` with images and perhaps statistics, or a folder of images.
        extractor: makes features of images.

    Raises:
        UserError: no such reference, one of features of another width, damaged images.
    """
    if path.is_dir():
        stored, digest = Reference(None, None, 1), None
    else:
        stored = read_reference(path, width=WIDTHS[POOLED], spatial_width=WIDTHS[SPATIAL])
        digest = sha256(path)
    fitted = stored.fitted_images
    if not stored.num_images:
        return ReferenceSet(str(path), digest, fitted, stored.pooled, stored.spatial, None, fitted, fitted)
    logging.info("features of the reference's images in %s", path)
    images = open_images(path, "reference")
    found = collect(extractor, images.batches(extractor.batch_size), images.source)
    pooled, spatial = stored.pooled, stored.spatial
    pooled_images = spatial_images = fitted
    if pooled is None:
        pooled, pooled_images = found.pooled_statistics.gaussian(str(path)), found.count
    if spatial is None:
        spatial, spatial_images = found.spatial_statistics.gaussian(str(path)), found.count
    return ReferenceSet(
        source=str(path),
        sha256=digest or found.pixels_sha256,
        num_images=found.count,
        pooled=pooled,
        spatial=spatial,
        features=found.pooled,
        pooled_images=pooled_images,
        spatial_images=spatial_images,
    )
