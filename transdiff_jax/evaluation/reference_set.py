"""What samples are compared with: statistics from a file, or images whose features are computed when loaded."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float

from transdiff_jax.evaluation.features import FeatureExtractor
from transdiff_jax.evaluation.image_sets import open_images
from transdiff_jax.evaluation.inception.network import WIDTHS
from transdiff_jax.evaluation.reference import Reference, read_reference
from transdiff_jax.evaluation.set_features import POOLED, SPATIAL, collect
from transdiff_jax.evaluation.statistics import Gaussian
from transdiff_jax.storage.checksums import sha256


class ReferenceSet(NamedTuple):
    """A reference, ready for comparison."""

    source: str
    sha256: str  # of the file; for a folder, of the pixels of its images
    num_images: int | None  # images in `features`, or else behind the statistics; None: unknown
    pooled: Gaussian | None
    spatial: Gaussian | None
    features: Float[np.ndarray, "n width"] | None  # "2048"; None: there are only statistics
    pooled_images: int | None  # images that `pooled` was fitted to; None: unknown
    spatial_images: int | None  # images that `spatial` was fitted to; None: unknown


def load_reference(path: Path, extractor: FeatureExtractor) -> ReferenceSet:
    """Reads a reference. Statistics in a file take precedence over those of its images, as in ADM.

    Args:
        path: statistics (`.npz`, `.pt`), a `.npz` with images and perhaps statistics, or a folder of images.
        extractor: computes features of images.

    Raises:
        UserError: there is no such reference, its features have another width, or its images are damaged.
    """
    if path.is_dir():
        return _with_images(path, Reference(None, None, 0), None, extractor)
    stored = read_reference(path, width=WIDTHS[POOLED], spatial_width=WIDTHS[SPATIAL])
    digest, fitted = sha256(path), stored.fitted_images
    if stored.num_images:
        return _with_images(path, stored, digest, extractor)
    return ReferenceSet(str(path), digest, fitted, stored.pooled, stored.spatial, None, fitted, fitted)


def _with_images(path: Path, stored: Reference, digest: str | None, extractor: FeatureExtractor) -> ReferenceSet:
    """A reference with the features of its images; without a file's digest, that of their pixels stands in."""
    logging.info("features of the reference's images in %s", path)
    images = open_images(path, "reference")
    found = collect(extractor, images.batches(extractor.batch_size), images.source)
    pooled, spatial = stored.pooled, stored.spatial
    pooled_images = spatial_images = stored.fitted_images
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
