"""Certificates: scores with everything that they depend on, as JSON and as a table."""

import dataclasses
import datetime

from jax.sharding import Mesh

from transdiff_jax.evaluation.image_sets import ImageSet, sampler_settings
from transdiff_jax.evaluation.inception.weights import PUBLISHED_SHA256, InceptionWeights
from transdiff_jax.evaluation.protocols import Protocol, unmet_requirements
from transdiff_jax.evaluation.reference_set import ReferenceSet
from transdiff_jax.evaluation.scores import Scores
from transdiff_jax.evaluation.set_features import SetFeatures
from transdiff_jax.parallel.machine import describe_machine
from transdiff_jax.storage.files import Json

Certificate = Json


def certificate_name(protocol: str) -> str:
    """The file name of a certificate; it names the protocol, so that no protocol overwrites the scores of another."""
    return f"evaluation.{protocol}.json"


def make_certificate(
    scores: Scores,
    protocol: Protocol,
    images: ImageSet,
    features: SetFeatures,
    reference: ReferenceSet,
    inception: InceptionWeights,
    mesh: Mesh,
) -> Certificate:
    """Builds a certificate. A score that could not be computed is null; `not_computed` says why."""
    settings = None if images.record is None else sampler_settings(images.record)
    return {
        "protocol": dataclasses.asdict(protocol),
        "num_samples": features.count,
        "scores": scores.values,
        "not_computed": scores.reasons,
        "warnings": _warnings(scores, protocol, images, features, inception),
        "samples": {
            "source": images.source,
            "kind": images.kind,
            "pixels_sha256": features.pixels_sha256,
            "seed": None if settings is None else settings["seed"],
            "sampler": settings,
        },
        "reference": {"source": reference.source, "sha256": reference.sha256, "images": reference.num_images},
        "inception": {"file": inception.file, "sha256": inception.sha256},
        "dtype": "features float32, scores float64",
        "machine": describe_machine(mesh),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _warnings(
    scores: Scores, protocol: Protocol, images: ImageSet, features: SetFeatures, inception: InceptionWeights
) -> list[str]:
    found = unmet_requirements(protocol, features.count, images.labels, images.num_classes) + scores.warnings
    if inception.sha256 != PUBLISHED_SHA256:
        found.append(
            f"the Inception weights are not those of published scores: {inception.file} has SHA-256 "
            f"{inception.sha256}, not {PUBLISHED_SHA256}"
        )
    return found


def format_table(certificate: Certificate) -> list[str]:
    """The scores, reasons and warnings of a certificate as lines of a table; each line names the protocol."""
    protocol = certificate["protocol"]["name"]
    rows = [("samples", str(certificate["num_samples"]))]
    for name, value in certificate["scores"].items():
        rows.append((name, f"not computed: {certificate['not_computed'][name]}" if value is None else f"{value:.6g}"))
    rows += [("warning", warning) for warning in certificate["warnings"]]
    return [f"{protocol:<10} {name:<20} {text}" for name, text in rows]
