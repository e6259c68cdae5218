"""Damage of every kind is found, and the step before is taken."""

import json
import shutil

import pytest

from tests.support import runs
from tests.support.damage import array_files, flip_byte
from transdiff_jax.checkpoints.checks import check_step
from transdiff_jax.checkpoints.steps import to_resume
from transdiff_jax.checkpoints.weights import latest_record, load_weights
from transdiff_jax.errors import UserError
from transdiff_jax.storage.checksums import DamageError, write_manifest

DEEP = '{"a":' * 100_000
MANIFESTS = {
    "list": "[1, 2]",
    "number": "5",
    "null": "null",
    "deep": DEEP,
    "half": '{"run/metadata": "00',
    "empty": "{}",
    "nothing": "",
    "digest": '{"run/metadata": 5}',
    "outside": json.dumps({"../../x": "0" * 64}),
    "absolute": json.dumps({"/etc/passwd": "0" * 64}),
}
CONFIG = runs.CONFIG.to_dict()
GOOD = runs.record_of(2).to_json()
RECORDS = {
    "list": [],
    "object": {},
    "null": None,
    "config": GOOD | {"config": 5},
    "section": GOOD | {"config": CONFIG | {"model": []}},
    "negative": GOOD | {"config": CONFIG | {"model": CONFIG["model"] | {"width": -16}}},
    "no classes": GOOD | {"config": CONFIG | {"model": CONFIG["model"] | {"num_classes": 0}}},
    "huge": GOOD | {"config": CONFIG | {"model": CONFIG["model"] | {"width": 10**30}}},
    "rates": GOOD | {"config": CONFIG | {"train": CONFIG["train"] | {"ema_rates": "x"}}},
    "unknown": GOOD | {"config": CONFIG | {"other": {}}},
    "data": GOOD | {"data": []},
    "place": GOOD | {"data": {"global_next_index": -1}},
    "seconds": GOOD | {"train_seconds": "x"},
    "infinite": GOOD | {"train_seconds": float("inf")},
    "names": GOOD | {"class_names": 5},
}


def write_record(step_folder, text):
    """Replaces the record, and the manifest vouches for it."""
    (step_folder / "run" / "metadata").write_text(text)
    write_manifest(step_folder)


def falls_back(workdir):
    assert latest_record(workdir) == runs.record_of(1)
    assert to_resume(workdir / "checkpoints") == 1


@pytest.mark.parametrize("text", MANIFESTS.values(), ids=MANIFESTS)
def test_a_malformed_manifest(workdir, text):
    (workdir / "checkpoints" / "2" / "manifest.json").write_text(text)
    falls_back(workdir)


@pytest.mark.parametrize("value", RECORDS.values(), ids=RECORDS)
def test_a_malformed_record(workdir, value):
    write_record(workdir / "checkpoints" / "2", json.dumps(value))
    falls_back(workdir)


@pytest.mark.parametrize("text", ["", "{", DEEP, "[1,"])
def test_a_record_that_is_no_json(workdir, text):
    write_record(workdir / "checkpoints" / "2", text)
    falls_back(workdir)


def test_a_record_whose_sizes_are_not_those_of_the_arrays(workdir, mesh, caplog):
    model = CONFIG["model"] | {"width": 1024}
    write_record(workdir / "checkpoints" / "2", json.dumps(GOOD | {"config": CONFIG | {"model": model}}))
    assert load_weights(workdir, mesh).step == 1
    assert "has decoder/blocks/attention/output/bias of shape (2, 1024), but the arrays have (2, 16)" in caplog.text


@pytest.mark.parametrize("name", ["run/metadata", "ema_0/_METADATA"])
def test_a_manifest_that_is_cut_to_one_file(workdir, mesh, name):
    manifest = workdir / "checkpoints" / "2" / "manifest.json"
    manifest.write_text(json.dumps({name: json.loads(manifest.read_text())[name]}))
    assert load_weights(workdir, mesh).step == 1
    assert to_resume(workdir / "checkpoints") == 1


@pytest.mark.parametrize("item", ["params", "ema_0", "ema_1", "optimizer", "run"])
def test_an_item_that_is_missing(workdir, item):
    step = workdir / "checkpoints" / "2"
    shutil.rmtree(step / item)
    with pytest.raises(DamageError, match=f"{item}/.* is missing"):
        check_step(step)
    write_manifest(step)
    with pytest.raises(DamageError, match=f"manifest.json lists no file of {item}"):
        check_step(step)


def test_the_file_that_orbax_rewrites_must_be_there(workdir):
    (workdir / "checkpoints" / "2" / "_CHECKPOINT_METADATA").unlink()
    falls_back(workdir)


def test_files_that_the_manifest_does_not_list_are_named(workdir, caplog):
    step = workdir / "checkpoints" / "2"
    assert check_step(step) == runs.record_of(2)
    assert not caplog.records
    (step / "notes.txt").write_text("mine")
    assert check_step(step) == latest_record(workdir) == runs.record_of(2)
    assert caplog.text.count("also holds 'notes.txt', which its manifest does not list") == 2
    (step / "ema_0" / "d" / "stranger").write_text("x")
    with pytest.raises(DamageError, match=r"manifest\.json does not list ema_0/d/stranger"):
        check_step(step)


def test_damage_of_what_is_not_read_does_not_matter(workdir, mesh):
    step = workdir / "checkpoints" / "2"
    flip_byte(step)
    assert load_weights(workdir, mesh, kind="raw").step == 2
    assert load_weights(workdir, mesh, ema_rate=0.5).step == 2
    assert load_weights(workdir, mesh).step == 1
    array_files(step)[0].unlink()
    assert to_resume(workdir / "checkpoints") == 1


def test_nothing_intact_is_one_line(workdir, mesh):
    for step in ("1", "2"):
        write_record(workdir / "checkpoints" / step, "[]")
    for read in (lambda: load_weights(workdir, mesh), lambda: to_resume(workdir / "checkpoints")):
        with pytest.raises(UserError) as caught:
            read()
        assert "all of steps [1, 2] are damaged (step 2: the record is not a JSON object)" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"step 2 in .* is damaged \(the record is not a JSON object\); choose another"):
        load_weights(workdir, mesh, step=2)
