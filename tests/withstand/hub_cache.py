"""A published run in the cache of huggingface_hub, as it is after a download, so that commands need no hub."""

import dataclasses
import hashlib
import tempfile
from pathlib import Path

import jax

from tests.support.hub_server import LFS, git_sha1
from transdiff_jax.checkpoints.weights import load_weights
from transdiff_jax.config import MeshConfig
from transdiff_jax.hub.bundle import write_bundle
from transdiff_jax.parallel.mesh import make_mesh

OFFLINE = {"HF_HUB_OFFLINE": "1"}
_CACHE, _COMMIT = "home/.cache/huggingface/hub/models--me--photos", "0123456789" * 4
SNAPSHOT = f"{_CACHE}/snapshots/{_COMMIT}"
_LARGEST = 1 << 30  # of a file whose digest is made


def publish(root, workdir):
    """Puts a run into the cache below `root`/home as hf://me/photos; its tokenizer is in `root`/weights."""
    weights = load_weights(workdir, make_mesh(MeshConfig(), jax.devices()[:1]))
    tokenizer = dataclasses.replace(weights.config.tokenizer, weights=str(root / "weights"))
    weights = dataclasses.replace(weights, config=dataclasses.replace(weights.config, tokenizer=tokenizer))
    for name in ("refs", "blobs", f"snapshots/{_COMMIT}"):
        (root / _CACHE / name).mkdir(parents=True)
    (root / _CACHE / "refs" / "main").write_text(_COMMIT)
    with tempfile.TemporaryDirectory() as made:
        write_bundle(weights, Path(made))
        for path in Path(made).iterdir():
            _link(root / SNAPSHOT / path.name, path.read_bytes())


def publish_again(root, path):
    """Gives a damaged file of the cache the digest of what it holds now."""
    if path.is_file() and path.stat().st_size <= _LARGEST and path.stat().st_mode & 0o777:
        content = path.read_bytes()
        path.unlink()
        _link(path, content)


def _link(path, content):
    digest = hashlib.sha256(content).hexdigest() if path.name.endswith(LFS) else git_sha1(content)
    blob = path.parent.parent.parent / "blobs" / digest
    blob.write_bytes(content)
    path.symlink_to(f"../../blobs/{digest}")
