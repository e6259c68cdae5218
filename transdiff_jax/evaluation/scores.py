"""All scores of a set of samples against a reference, under one protocol."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.metrics import (
    PrecisionRecall,
    Score,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
)
from transdiff_jax.evaluation.protocols import Protocol
from transdiff_jax.evaluation.reference_set import ReferenceSet
from transdiff_jax.evaluation.set_features import SetFeatures
from transdiff_jax.evaluation.statistics import FeatureStatistics, Gaussian, rank_warning

FID, SFID, IS, IS_STD = "fid", "sfid", "inception_score", "inception_score_std"
PRECISION, RECALL, KID, KID_STD = "precision", "recall", "kid", "kid_std"


class Scores(NamedTuple):
    """Scores by name. A score that cannot be computed is None; `reasons` says why."""

    values: dict[str, float | None]
    reasons: dict[str, str]
    warnings: list[str]


def make_scores(samples: SetFeatures, reference: ReferenceSet, protocol: Protocol) -> Scores:
    """Computes every score that it can: too few images for one score do not prevent the others."""
    scores = Scores({}, {}, _rank_warnings(samples, reference))
    computations: tuple[tuple[tuple[str, ...], Callable[[], Iterable[float]]], ...] = (
        ((FID,), lambda: [_frechet(samples.pooled_statistics, reference.pooled, samples.source, "mu and sigma")]),
        (
            (SFID,),
            lambda: [_frechet(samples.spatial_statistics, reference.spatial, samples.source, "mu_s and sigma_s")],
        ),
        ((IS, IS_STD), lambda: _inception_score(samples, protocol)),
        ((PRECISION, RECALL), lambda: _precision_recall(samples, reference, protocol)),
        ((KID, KID_STD), lambda: _kernel_distance(samples, reference, protocol)),
    )
    for names, compute in computations:
        try:
            scores.values.update(zip(names, compute(), strict=True))
        except UserError as error:
            scores.values.update(dict.fromkeys(names))
            scores.reasons.update(dict.fromkeys(names, str(error)))
    return scores


def _frechet(statistics: FeatureStatistics, reference: Gaussian | None, source: str, arrays: str) -> float:
    if reference is None:
        raise UserError(f"the reference has no {arrays}")
    return frechet_distance(statistics.gaussian(source), reference)


def _inception_score(samples: SetFeatures, protocol: Protocol) -> Score:
    return inception_score(
        samples.logits, splits=protocol.splits, split_size=protocol.split_size, seed=protocol.shuffle_seed
    )


def _precision_recall(samples: SetFeatures, reference: ReferenceSet, protocol: Protocol) -> PrecisionRecall:
    return precision_recall(samples.pooled, _image_features(reference), neighbours=protocol.neighbours)


def _kernel_distance(samples: SetFeatures, reference: ReferenceSet, protocol: Protocol) -> Score:
    subsets, size = protocol.kernel_subsets, protocol.kernel_subset_size
    return kernel_distance(samples.pooled, _image_features(reference), subsets=subsets, subset_size=size)


def _image_features(reference: ReferenceSet) -> Float[np.ndarray, "n width"]:
    if reference.features is None:
        raise UserError("the reference has only statistics, but this score needs its images")
    return reference.features


def _rank_warnings(samples: SetFeatures, reference: ReferenceSet) -> list[str]:
    sets = [
        ("fid, samples", samples.count, samples.pooled_statistics.width),
        ("sfid, samples", samples.count, samples.spatial_statistics.width),
    ]
    references = [
        ("fid, reference", reference.pooled_images, reference.pooled),
        ("sfid, reference", reference.spatial_images, reference.spatial),
    ]
    sets += [
        (name, count, gaussian.mean.size)
        for name, count, gaussian in references
        if count is not None and gaussian is not None
    ]
    return [f"{name}: {warning}" for name, count, width in sets if (warning := rank_warning(count, width))]
