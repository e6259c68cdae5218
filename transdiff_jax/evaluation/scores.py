"""All scores of a set of samples against a reference, under one protocol."""

from collections.abc import Callable
from typing import NamedTuple

from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.metrics import Score, frechet_distance, inception_score, kernel_distance, precision_recall
from transdiff_jax.evaluation.protocols import Protocol
from transdiff_jax.evaluation.reference_set import ReferenceSet
from transdiff_jax.evaluation.set_features import SetFeatures
from transdiff_jax.evaluation.statistics import FeatureStatistics, Gaussian, rank_warning

FID, SFID, IS, IS_STD = "fid", "sfid", "inception_score", "inception_score_std"
PRECISION, RECALL, KID, KID_STD = "precision", "recall", "kid", "kid_std"


class Scores(NamedTuple):
    """Scores by name, each a number or None, and why those are None that are."""

    values: dict[str, float | None]
    reasons: dict[str, str]
    warnings: list[str]


def make_scores(samples: SetFeatures, reference: ReferenceSet, protocol: Protocol) -> Scores:
    """Every score that can be made of what is there."""
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for names, make in _parts(samples, reference, protocol):
        try:
            found = make()
        except _Impossible as error:
            found = (None,) * len(names)
            reasons |= dict.fromkeys(names, str(error))
        values |= zip(names, found, strict=True)
    return Scores(values, reasons, _rank_warnings(samples, reference))


class _Impossible(Exception):  # noqa: N818 (a score that is not asked of these sets, and no fault of the program)
    """This score cannot be made of these sets; the message says why."""


Part = tuple[tuple[str, ...], Callable[[], tuple[float, ...]]]


def _parts(samples: SetFeatures, reference: ReferenceSet, protocol: Protocol) -> list[Part]:
    """Names of scores, and what makes them together."""
    p = protocol
    return [
        ((FID,), lambda: (_frechet(samples.pooled_statistics, reference.pooled, samples, "mu and sigma"),)),
        ((SFID,), lambda: (_frechet(samples.spatial_statistics, reference.spatial, samples, "mu_s and sigma_s"),)),
        ((IS, IS_STD), lambda: _guarded(lambda: _inception_score(samples, p))),
        (
            (PRECISION, RECALL),
            lambda: _with_features(
                reference, lambda real: precision_recall(samples.pooled, real, neighbours=p.neighbours)
            ),
        ),
        (
            (KID, KID_STD),
            lambda: _with_features(
                reference,
                lambda real: kernel_distance(
                    samples.pooled, real, subsets=p.kernel_subsets, subset_size=p.kernel_subset_size
                ),
            ),
        ),
    ]


def _inception_score(samples: SetFeatures, protocol: Protocol) -> Score:
    return inception_score(
        samples.logits, splits=protocol.splits, split_size=protocol.split_size, seed=protocol.shuffle_seed
    )


def _frechet(statistics: FeatureStatistics, reference: Gaussian | None, samples: SetFeatures, arrays: str) -> float:
    if reference is None:
        raise _Impossible(f"the reference has no {arrays}")
    return _guarded(lambda: frechet_distance(statistics.gaussian(samples.source), reference))


def _with_features(reference: ReferenceSet, make: Callable) -> tuple[float, ...]:
    if reference.features is None:
        raise _Impossible("the reference has statistics only, and this score needs its images")
    return _guarded(lambda: make(reference.features))


def _guarded(make: Callable) -> tuple[float, ...]:
    """Too few images for one score are no reason to give none of the others."""
    try:
        return make()
    except UserError as error:
        raise _Impossible(str(error)) from None


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
