"""Publishes a run on the hub."""

import dataclasses
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import logging

from transdiff_jax.checkpoints.weights import Weights, latest_record, load_weights
from transdiff_jax.config import MeshConfig
from transdiff_jax.errors import UserError
from transdiff_jax.hub.bundle import without_paths, write_bundle
from transdiff_jax.hub.card import model_card
from transdiff_jax.hub.certificates import find_certificates
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.storage.files import write_bytes
from transdiff_jax.storage.hub_errors import UnreachableError, raise_explained, require_hub
from transdiff_jax.storage.hub_files import SCHEME, HubName, parse_name

CARD = "README.md"
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")


def push(
    workdir: Path,
    repo: str,
    *,
    licence: str,
    ema_rate: float | None = None,
    certificates: Sequence[Path] = (),
    private: bool = False,
) -> HubName:
    """Publishes an average of a run's newest intact checkpoint in one commit, and makes the repository if needed.

    Args:
        workdir: of the run.
        repo: OWNER/NAME.
        licence: of the weights, as the hub names it, such as apache-2.0.
        ema_rate: which average; None for the run's first.
        certificates: scores of this average by transdiff evaluate; those made while training come with it.
        private: whether a new repository is private.

    Returns:
        What `td.load` takes, with the commit.

    Raises:
        UserError: the run or a certificate cannot be read, a name is malformed, or the hub refuses or does not answer.
    """
    name = parse_name(f"{SCHEME}://{repo}")
    if name != HubName(name.repo):
        raise UserError(f"repo={repo} must be OWNER/NAME")
    if not _LICENCE.fullmatch(licence):
        raise UserError(f"license={licence!r} must be a name of the hub, such as apache-2.0, cc-by-nc-4.0 or other")
    require_hub(str(name))
    weights = load_weights(workdir, make_mesh(MeshConfig(), jax.devices()[:1]), ema_rate=ema_rate)
    scores = find_certificates(workdir, weights, certificates)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_bundle(weights, folder)
        published = dataclasses.replace(weights, config=without_paths(weights.config, weights.name))
        card = model_card(name.repo, licence, published, latest_record(workdir).train_seconds, scores)
        write_bytes(folder / CARD, card.encode())
        for scored in scores:
            (folder / scored.name).parent.mkdir(exist_ok=True)
            write_bytes(folder / scored.name, scored.path.read_bytes())
        commit = _commit(name, folder, weights, private)
    logging.info("published %s of step %d as %s", weights.name, weights.step, commit)
    return commit


def _commit(name: HubName, folder: Path, weights: Weights, private: bool) -> HubName:
    hub = require_hub(str(name))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    added = [hub.CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files]
    message = f"{weights.name} of step {weights.step}"
    try:
        api = hub.HfApi()
        api.create_repo(name.repo, private=private, exist_ok=True)
        return name._replace(revision=api.create_commit(name.repo, added, commit_message=message).oid)
    except Exception as error:
        # A failed upload hides its reason.
        cause = error.__cause__ if type(error) is RuntimeError and isinstance(error.__cause__, Exception) else error
        try:
            raise_explained(str(name), name.repo, cause)
        except UnreachableError as unreachable:
            raise UserError(f"{name}: the hub cannot be reached ({unreachable}): nothing is published") from error
