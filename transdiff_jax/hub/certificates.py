"""Certificates of scores, chosen and checked for a model that is published."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from transdiff_jax.checkpoints.weights import Weights
from transdiff_jax.errors import UserError
from transdiff_jax.storage.files import Json
from transdiff_jax.storage.json_files import JsonError, is_number, read_json_object
from transdiff_jax.training.training_scores import CERTIFICATES


class Scored(NamedTuple):
    """A certificate with the file that holds it."""

    path: Path
    certificate: Json

    @property
    def name(self) -> str:
        """Where it stands in the repository."""
        return f"{CERTIFICATES}/{self.path.name}"


def find_certificates(workdir: Path, weights: Weights, others: Sequence[Path]) -> list[Scored]:
    """The certificate that training made of these weights, if there is one, and others.

    Args:
        workdir: of the run.
        weights: that are published.
        others: files of transdiff evaluate.

    Raises:
        UserError: a file is no certificate, or one of other weights; or two have one name.
    """
    found = [_read(path) for path in others]
    for scored in found:
        _check(scored, weights, weights.digest)
    own = workdir / CERTIFICATES / f"{weights.step}.json"
    if own.is_file():
        scored = _read(own)
        if _sampler(scored).get("weights") == weights.name:  # another average has no scores from training
            found.insert(0, scored)
    names = [scored.name for scored in found]
    if len(set(names)) < len(names):
        raise UserError(f"two certificates have the name of one file: {', '.join(sorted(names))}; rename one")
    return found


def _read(path: Path) -> Scored:
    try:
        certificate = read_json_object(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except JsonError as error:
        raise UserError(f"{path} {error}: name a certificate of transdiff evaluate") from None
    if not _is_certificate(certificate):
        raise UserError(f"{path} is no certificate of transdiff evaluate")
    return Scored(path, certificate)


def _is_certificate(value: Json) -> bool:
    """Whether all is there that the model card shows."""
    parts = {"protocol": dict, "scores": dict, "not_computed": dict, "warnings": list, "samples": dict}
    if not all(isinstance(value.get(name), kind) for name, kind in parts.items()):
        return False
    reasons, texts = value["not_computed"], [value["protocol"].get("name"), *value["warnings"]]
    for name, score in value["scores"].items():
        texts += [name, reasons.get(name)] if score is None else [name]
    numbers = [value.get("num_samples"), *(score for score in value["scores"].values() if score is not None)]
    return all(isinstance(text, str) and text.isprintable() for text in texts) and all(map(is_number, numbers))


def _check(scored: Scored, weights: Weights, digest: str) -> None:
    found = _sampler(scored)
    if (found.get("checkpoint_sha256"), found.get("weights")) != (digest, weights.name):
        raise UserError(
            f"{scored.path} does not certify {weights.name} of step {weights.step}: its samples come from "
            f"{found.get('weights', 'weights that it does not name')} of step {found.get('step', 'unknown')}"
        )


def _sampler(scored: Scored) -> Json:
    found = scored.certificate["samples"].get("sampler")
    return found if isinstance(found, dict) else {}
