"""Checks one golden file, of any network, and returns a record."""

import math
from collections.abc import Callable
from pathlib import Path

import jax

from transdiff_jax.errors import UserError
from transdiff_jax.storage.files import Json
from transdiff_jax.verification import inception_checks
from transdiff_jax.verification.check import Check
from transdiff_jax.verification.golden import GoldenFile
from transdiff_jax.verification.kl16_checks import check_autoencoder, make_tokenizer
from transdiff_jax.verification.sampling_checks import check_sample
from transdiff_jax.verification.training_checks import check_training
from transdiff_jax.verification.transdiff_checks import check_loss, check_network, subject


def _check_transdiff(file: GoldenFile) -> list[Check]:
    model = subject(file)
    checks = check_network(file, model)
    for section in ("sample_guided", "sample_unguided"):
        if f"{section}/" in file:
            checks += check_sample(file, model, section)
    for section in ("loss", "loss_dropped"):
        if f"{section}/" in file:
            checks += check_loss(file, model, section)
    if "train/" in file:
        checks += check_training(file, model)
    return checks


def _check_kl16(file: GoldenFile) -> list[Check]:
    return check_autoencoder(file, make_tokenizer(file))


def _check_inception(file: GoldenFile) -> list[Check]:
    return inception_checks.check_network(file, inception_checks.make_params(file)) + inception_checks.check_metrics(
        file
    )


# A tensor that only this network has -> its checks.
_NETWORKS: dict[str, Callable[[GoldenFile], list[Check]]] = {
    "class_emb.weight": _check_transdiff,
    "post_quant_conv.weight": _check_kl16,
    "Mixed_7c.branch_pool.conv.weight": _check_inception,
}


def verify(path: str | Path) -> Json:
    """Checks our code against a golden file.

    Returns:
        A JSON value: "file", "max_relative_error", "checks" and "tolerances" by name, "failed" (names), "reasons" (by
        name, why a check could not be made), "unchecked" (arrays of the file that no check read) and "ok". An error
        that is not finite is null.

    Raises:
        UserError: the file is not a golden file, or holds a network that has no checks.
    """
    file = GoldenFile(path)
    shapes = file.weight_shapes()
    network = next((check for tensor, check in _NETWORKS.items() if tensor in shapes), None)
    if network is None:
        raise UserError(
            f"{path}: there are no checks for its network; name a file with a tensor {', '.join(_NETWORKS)}"
        )
    # By default, accelerators multiply float32 in fewer bits.
    with jax.default_matmul_precision("highest"):
        checks = network(file)
    return {
        "file": str(path),
        "max_relative_error": _finite(max((_rank(check.relative_error) for check in checks), default=math.inf)),
        "checks": {check.name: _finite(check.relative_error) for check in checks},
        "tolerances": {check.name: check.tolerance for check in checks},
        "failed": [check.name for check in checks if not check.ok],
        "reasons": {check.name: check.reason for check in checks if check.reason is not None},
        "unchecked": file.unread(),
        "ok": bool(checks) and all(check.ok for check in checks),
    }


def _rank(error: float) -> float:
    return math.inf if math.isnan(error) else error


def _finite(error: float) -> float | None:
    return error if math.isfinite(error) else None
