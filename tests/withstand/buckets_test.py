"""Damaged files in a bucket: whoever reads them, in this process, raises nothing but errors for users."""

import random

import jax
import numpy as np
import pytest

from tests.support import runs
from tests.support.buckets import BUCKET, upload
from tests.support.latents import Photographs, photo_config, save_tiny_weights
from tests.support.sample_sets import write_samples
from tests.withstand.byte_mutations import BYTES
from tests.withstand.json_mutations import JSON
from transdiff_jax.config import MeshConfig
from transdiff_jax.data.latents import encode
from transdiff_jax.data.latents.claim import Claim
from transdiff_jax.data.latents.encode import cache_latents
from transdiff_jax.data.latents.format import check_all, read_manifest
from transdiff_jax.data.latents.job import LatentJob
from transdiff_jax.errors import UserError
from transdiff_jax.generation.finished_set import read_finished
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.storage.files import write_json
from transdiff_jax.storage.leases import Lease
from transdiff_jax.storage.paths import location
from transdiff_jax.training.run_info import describe_run, info_lines

CASES = 25  # of each kind
SETTINGS = {"labels": [0, 1, 2], "seed": 4, "sampling": {"steps": 2}}


def info(place):
    info_lines(describe_run(place / "run"))


def take(place):
    lease = Lease(place / "run" / ".lock")
    lease.renew()
    lease.close()


def go_on(place):
    claim = Claim(place / "half")
    try:
        claim.take()
        LatentJob(place / "half", read_manifest(place / "latents").settings, claim).open()
    finally:
        claim.close()


# Name -> file, reader, and how many cases are in the quick set.
KINDS = {
    "lease.json": ("run/.lock", take, 3),
    "step-manifest.json": ("run/checkpoints/2/manifest.json", info, 2),
    "step-record.json": ("run/checkpoints/2/run/metadata", info, 1),
    "step-commit": ("run/checkpoints/2/commit_success.txt", info, 1),
    "step-average": ("run/checkpoints/2/ema_0/manifest.ocdbt", info, 1),
    "metrics.json": ("run/metrics.jsonl", info, 1),
    "latents-manifest.json": ("latents/manifest.json", lambda place: check_all(place / "latents"), 2),
    "latents-labels": ("latents/labels.npy", lambda place: check_all(place / "latents"), 1),
    "latents-ids.json": ("latents/ids.json.gz", lambda place: check_all(place / "latents"), 1),
    "half-settings.json": ("half/progress/settings.json", go_on, 2),
    "set-record.json": ("samples/samples.json", lambda place: read_finished(place / "samples"), 2),
    "set-sums": ("samples/SHA256SUMS", lambda place: read_finished(place / "samples"), 1),
}


@pytest.fixture(scope="module")
def place(bucket_server, tmp_path_factory):
    """A run, latents, unfinished latents and a sample set in a bucket."""
    here, there = tmp_path_factory.mktemp("place"), location(f"gs://{BUCKET}/withstand", "bucket")
    runs.save_steps(here / "run", runs.make_state(make_mesh(MeshConfig(), jax.devices()[:1])), [1, 2])
    (here / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n')
    write_json(here / "run" / ".lock", {"holder": "a host, process 7, 0123"})
    weights = save_tiny_weights(here / "weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "open_source", lambda *_: Photographs(4))
        settings = cache_latents(photo_config(weights), here / "latents").settings
    claim = Claim(here / "half")
    claim.take()
    LatentJob(here / "half", settings, claim).open()
    claim.close()
    write_samples(here / "samples", np.zeros((3, 3, 3, 3), np.uint8), SETTINGS)
    return upload(here, there)


def cases(quick):
    for kind, (_, _, count) in KINDS.items():
        names = [*BYTES, *(JSON if kind.endswith("json") else ())]
        random.Random(kind).shuffle(names)
        yield from ((kind, name) for name in (names[:count] if quick else names[count:CASES]))


def check(place, kind, mutation, monkeypatch):
    monkeypatch.setattr(Lease, "_server_time", lambda lease: 1e12)  # whoever holds it has been silent for long
    file, read, _ = KINDS[kind]
    before = (place / file).read_bytes()
    (place / file).write_bytes((BYTES | JSON)[mutation](random.Random(f"{kind}/{mutation}"), before))
    try:
        read(place)
    except UserError as error:
        assert "\n" not in str(error)
    finally:
        (place / file).write_bytes(before)


@pytest.mark.slow
def test_undamaged_files_are_read(place, monkeypatch):
    monkeypatch.setattr(Lease, "_server_time", lambda lease: 1e12)
    lock = (place / "run" / ".lock").read_bytes()
    for _, read, _ in KINDS.values():
        read(place)
        (place / "run" / ".lock").write_bytes(lock)


@pytest.mark.parametrize(("kind", "mutation"), cases(quick=True))
def test_a_share_of_all_cases(place, kind, mutation, monkeypatch):
    check(place, kind, mutation, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "mutation"), cases(quick=False))
def test_each_case(place, kind, mutation, monkeypatch):
    check(place, kind, mutation, monkeypatch)
