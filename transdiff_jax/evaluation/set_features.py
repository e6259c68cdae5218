"""Everything that scores need from a set of images, collected in one pass; the images are not kept."""

from collections.abc import Iterable
from functools import partial

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.features import Extracted, FeatureExtractor, Images, digest_set
from transdiff_jax.evaluation.inception.network import WIDTHS, inception_features
from transdiff_jax.evaluation.inception.preprocess import SIDE
from transdiff_jax.evaluation.statistics import FeatureStatistics
from transdiff_jax.parallel.memory import check_devices
from transdiff_jax.parallel.mesh import batch_shards
from transdiff_jax.storage.frozen_weights import FrozenParams

POOLED, SPATIAL, LOGITS = "2048", "spatial", "logits_unbiased"
KEPT_BYTES = (WIDTHS[POOLED] + WIDTHS[LOGITS]) * np.dtype(np.float32).itemsize  # of each image, for the scores
BATCH_SIZE = 64  # images in a batch by default, rounded up to a multiple of the devices


def make_extractor(params: FrozenParams, mesh: Mesh, batch_size: int | None) -> FeatureExtractor:
    """Inception over a mesh, with the features that scores need; `batch_size=None` takes the default.

    Raises:
        UserError: the batch does not split evenly over the devices, or fits no memory.
    """
    if batch_size is None:
        devices = batch_shards(mesh)
        batch_size = -(-BATCH_SIZE // devices) * devices
    resized = -(-batch_size // batch_shards(mesh)) * SIDE**2 * 3 * np.dtype(np.float32).itemsize
    check_devices("Inception", {f"images of {SIDE} x {SIDE}": resized}, mesh, "lower its batch size")
    return FeatureExtractor(partial(inception_features, names=(POOLED, SPATIAL, LOGITS)), params, mesh, batch_size)


class SetFeatures:
    """Features of a set of images; those of 50,000 images take 0.6 GB."""

    def __init__(self, source: str) -> None:
        """Starts with no images; `source` names the set in errors and warnings."""
        self.source = source
        self.pooled_statistics = FeatureStatistics(WIDTHS[POOLED])
        self.spatial_statistics = FeatureStatistics(WIDTHS[SPATIAL])
        self._pooled: list[np.ndarray] = []
        self._logits: list[np.ndarray] = []
        self._digests: list[np.ndarray] = []

    @property
    def count(self) -> int:
        """Images so far."""
        return self.pooled_statistics.count

    @property
    def pooled(self) -> Float[np.ndarray, "n width"]:
        """Features "2048" of all images in order, float32."""
        return np.concatenate(self._pooled)

    @property
    def logits(self) -> Float[np.ndarray, "n classes"]:
        """Logits without the last bias, of all images in order, float32."""
        return np.concatenate(self._logits)

    @property
    def pixels_sha256(self) -> str:
        """Digest of the pixels of all images in order; does not depend on the container or the processes."""
        return digest_set(np.concatenate(self._digests))

    def add(self, extracted: Extracted) -> None:
        """Adds the features of the next images.

        Raises:
            UserError: a feature is not a finite number.
        """
        features = extracted.features
        for values in features.values():
            finite = np.isfinite(values).all(axis=1)
            if not finite.all():
                index = self.count + int(np.argmin(finite))
                raise UserError(
                    f"{self.source}: features of image {index} (from 0) are not finite numbers; check the Inception "
                    "weights"
                )
        self.pooled_statistics.add(features[POOLED])
        self.spatial_statistics.add(features[SPATIAL])
        self._pooled.append(features[POOLED])
        self._logits.append(features[LOGITS])
        self._digests.append(extracted.digests)


def collect(extractor: FeatureExtractor, batches: Iterable[Images], source: str) -> SetFeatures:
    """Features of all images and the digest of their pixels. Every process calls this and gets the same result.

    Args:
        extractor: from `make_extractor`.
        batches: batches of the extractor's size; images of one size with 1 or 3 channels.
        source: name of the set in errors and warnings.

    Raises:
        UserError: there are no images, or a feature is not finite.
    """
    found = SetFeatures(source)
    for extracted in extractor(batches):
        found.add(extracted)
    if not found.count:
        raise UserError(f"{source} holds no images")
    return found
