import json

import jax
import numpy as np
import pytest

from tests.support import runs
from tests.support.buckets import upload
from tests.support.hub_server import served
from transdiff_jax.checkpoints.weights import load_weights
from transdiff_jax.cli import push as command
from transdiff_jax.config import MeshConfig
from transdiff_jax.errors import UserError
from transdiff_jax.hub.local_runs import local_run
from transdiff_jax.hub.publishing import push
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.storage.files import write_json

pytest.importorskip("safetensors")
constants = pytest.importorskip("huggingface_hub.constants")

REPO = "me/digits"


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, mesh):
    folder = tmp_path_factory.mktemp("run")
    runs.save_steps(folder, runs.make_state(mesh), [7])
    return folder


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with served(monkeypatch, tmp_path / "cache") as hub:
        yield hub


def certificate(folder, made_by, /, **sampler):
    value = {
        "protocol": {"name": "transdiff"},
        "num_samples": 10,
        "scores": {"fid": 3.25, "kid": None},
        "not_computed": {"kid": "too few samples"},
        "warnings": ["10 samples"],
        "samples": {"sampler": {"checkpoint_sha256": made_by.digest, "weights": made_by.name, "step": 7} | sampler},
    }
    path = folder / "evaluation.transdiff.json"
    path.write_text(json.dumps(value))
    return path


def test_what_is_pushed_comes_back_bit_for_bit(hub, workdir, mesh, tmp_path):
    ours = load_weights(workdir, mesh, ema_rate=0.5)
    scores = certificate(tmp_path, ours)
    made = push(workdir, REPO, licence="apache-2.0", ema_rate=0.5, certificates=[scores], private=True)
    commit, files = hub.files(REPO)
    assert made == (REPO, commit, "")
    assert json.loads(hub.bodies[0])["visibility"] == "private"
    assert set(files) == {"model.safetensors", "config.json", "README.md", "evaluation/evaluation.transdiff.json"}
    card = files["README.md"].decode()
    assert card.startswith("---\nlicense: apache-2.0\n")
    for part in ("| steps | 7 of 8 rows |", "transdiff  fid                  3.25", "too few samples", "`digits`"):
        assert part in card
    theirs = load_weights(local_run(f"hf://{REPO}", "workdir"), mesh)
    jax.tree.map(np.testing.assert_array_equal, theirs.params, ours.params)
    assert (theirs.name, theirs.step, theirs.class_names) == (ours.name, ours.step, ours.class_names)
    assert theirs.config.model == ours.config.model
    assert theirs.config.sampling == ours.config.sampling
    hub.requests.clear()
    local_run(str(made), "workdir")
    assert hub.requests == []


def test_a_run_in_a_bucket_is_pushed_with_its_scores(hub, workdir, mesh, bucket, tmp_path, capsys):
    upload(workdir, bucket)
    scores = json.loads(certificate(tmp_path, load_weights(workdir, mesh)).read_text())
    write_json(bucket / "evaluation" / "7.json", scores)
    command.FLAGS(["push", f"--workdir={bucket}", f"--repo={REPO}", "--license=mit"])
    command.main()
    assert json.loads(hub.files(REPO)[1]["evaluation/7.json"]) == scores
    assert "hf://me/digits@" in capsys.readouterr().out


def test_nothing_names_folders_of_this_machine(hub, workdir, mesh):
    push(workdir, REPO, licence="mit")
    for content in hub.files(REPO)[1].values():
        assert b"/tmp" not in content and str(workdir).encode() not in content


def test_damage_in_the_repository_is_found(hub, workdir):
    push(workdir, REPO, licence="mit")
    files = hub.files(REPO)[1]
    note = json.loads(files["config.json"])
    for changed, message in (
        ({"config.json": b"[]"}, r"config.json is no configuration of a published run"),
        ({"config.json": json.dumps(note | {"format": 2}).encode()}, "is of another format than 1"),
        ({"model.safetensors": files["model.safetensors"][:-8]}, "model.safetensors cannot be read as safetensors"),
    ):
        hub.add_commit(REPO, files | changed)
        with pytest.raises(UserError, match=message):
            local_run(f"hf://{REPO}", "workdir")
    for changed, message in (
        ({"step": True}, "has no step"),
        ({"class_names": ["one"]}, "config.json names 1 of 10 classes"),
    ):
        hub.add_commit(REPO, files | {"config.json": json.dumps(note | changed).encode()})
        with pytest.raises(UserError, match=message):
            local_run(f"hf://{REPO}", "workdir")
    note["config"]["model"]["width"] = 32
    hub.add_commit(REPO, files | {"config.json": json.dumps(note).encode()})
    with pytest.raises(UserError, match=r"model.safetensors: .* is .*16.*, but its configuration asks for .*32"):
        local_run(f"hf://{REPO}", "workdir")


@pytest.mark.parametrize("changed", [{"checkpoint_sha256": "0"}, {"weights": "raw"}])
def test_scores_of_other_weights_are_refused(hub, workdir, mesh, tmp_path, changed):
    path = certificate(tmp_path, load_weights(workdir, mesh), **changed)
    with pytest.raises(UserError, match=r"does not certify ema 0.9 of step 7"):
        push(workdir, REPO, licence="mit", certificates=[path])
    assert hub.requests == []


@pytest.mark.parametrize(
    "changed",
    [
        {"num_samples": None},
        {"scores": {"fid": "3"}},
        {"scores": {"fid": 10**400}},
        {"not_computed": {}},
        {"warnings": ["a\ud800"]},
        {"protocol": {}},
    ],
)
def test_what_the_card_cannot_show_is_no_certificate(hub, workdir, mesh, tmp_path, changed):
    path = certificate(tmp_path, load_weights(workdir, mesh))
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(UserError, match=r"evaluation.transdiff.json is no certificate of transdiff evaluate"):
        push(workdir, REPO, licence="mit", certificates=[path])


@pytest.mark.parametrize(
    ("repo", "licence", "message"),
    [
        ("digits", "mit", "hf://digits is no name of the hub"),
        ("me/digits/file", "mit", "repo=me/digits/file must be OWNER/NAME"),
        (REPO, "MIT License", "license='MIT License' must be a name of the hub"),
    ],
)
def test_names_are_checked_first(workdir, repo, licence, message):
    with pytest.raises(UserError, match=message):
        push(workdir, repo, licence=licence)


def test_without_the_hub_nothing_is_published(hub, workdir, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"^hf://me/digits: the hub cannot be reached .*: nothing is published"):
        push(workdir, REPO, licence="mit")


def test_the_command_prints_what_can_be_loaded(hub, workdir, capsys):
    command.FLAGS(["push", f"--workdir={workdir}", f"--repo={REPO}", "--license=mit"])
    command.main()
    assert capsys.readouterr().out == f"hf://{REPO}@{hub.files(REPO)[0]}\n"
