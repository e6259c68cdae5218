"""Everything that scores need of one set of images, collected in one pass: images themselves are not kept."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
from jax.sharding import Mesh

from transdiff_jax import sharding
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.features import FeatureExtractor, Features
from transdiff_jax.evaluation.inception import WIDTHS, inception_features
from transdiff_jax.evaluation.statistics import FeatureStatistics

POOLED, SPATIAL, LOGITS = "2048", "spatial", "logits_unbiased"
BATCH_SIZE = 64  # images at once by default, or the next multiple of the devices


def make_extractor(params: dict, mesh: Mesh, batch_size: int | None) -> FeatureExtractor:
    """Inception over a mesh, with the features that scores are made of; `batch_size` None takes the default.

    Raises:
        UserError: the batch does not split evenly over the devices.
    """
    if batch_size is None:
        shards = sharding.batch_shards(mesh)
        batch_size = -(-BATCH_SIZE // shards) * shards
    return FeatureExtractor(partial(inception_features, names=(POOLED, SPATIAL, LOGITS)), params, mesh, batch_size)


class SetFeatures:
    """Features of a set: 50,000 images take 0.6 GB."""

    def __init__(self, source: str) -> None:
        """Starts with no images; `source` is what to call the set in errors and warnings."""
        self.source = source
        self.pooled_statistics = FeatureStatistics(WIDTHS[POOLED])
        self.spatial_statistics = FeatureStatistics(WIDTHS[SPATIAL])
        self.pixels_sha256 = ""
        self._pooled: list[np.ndarray] = []
        self._logits: list[np.ndarray] = []

    @property
    def count(self) -> int:
        """Images so far."""
        return self.pooled_statistics.count

    @property
    def pooled(self) -> np.ndarray:
        """Features "2048" of all images in order, float32 [n, width]."""
        return np.concatenate(self._pooled)

    @property
    def logits(self) -> np.ndarray:
        """Logits without the last bias, float32 [n, classes]."""
        return np.concatenate(self._logits)

    def add(self, features: Features) -> None:
        """Takes the features of the next images.

        Raises:
            UserError: a feature is not a finite number.
        """
        for values in features.values():
            finite = np.isfinite(values).all(axis=1)
            if not finite.all():
                index = self.count + int(np.argmin(finite))
                raise UserError(
                    f"{self.source}: features of image {index} (from 0) are not finite numbers; are the Inception "
                    "weights right?"
                )
        self.pooled_statistics.add(features[POOLED])
        self.spatial_statistics.add(features[SPATIAL])
        self._pooled.append(features[POOLED])
        self._logits.append(features[LOGITS])


def collect(extractor: FeatureExtractor, pieces: Iterable[np.ndarray], source: str) -> SetFeatures:
    """Features of all images, and the digest of their pixels.

    Args:
        extractor: from `make_extractor`.
        pieces: uint8 [n, height, width, 1 or 3], of one size.
        source: what to call the set in errors and warnings.

    Raises:
        UserError: no images, or features that are not finite.
    """
    found, digest = SetFeatures(source), hashlib.sha256()
    for features in extractor(_digested(pieces, digest)):
        found.add(features)
    if not found.count:
        raise UserError(f"{source} holds no images")
    found.pixels_sha256 = digest.hexdigest()
    return found


def _digested(pieces: Iterable[np.ndarray], digest: "hashlib._Hash") -> Iterator[np.ndarray]:
    """The same pieces; the digest is of the pixels as RGB, so that it is the same in any container."""
    for number, piece in enumerate(pieces):
        if number == 0:
            digest.update(f"{piece.shape[1]}x{piece.shape[2]}".encode())
        digest.update(np.broadcast_to(piece, (*piece.shape[:3], 3)).tobytes())
        yield piece
