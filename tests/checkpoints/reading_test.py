"""Reads beside a trainer that deletes or replaces the step that is read, at every stage of the read."""

import functools
import gc
import logging
import shutil
import sys

import jax
import numpy as np
import pytest

import transdiff_jax as td
from tests.support import runs
from tests.support.commands import start, wait_for
from transdiff_jax.checkpoints import items, reading, weights
from transdiff_jax.checkpoints.record import read_record
from transdiff_jax.checkpoints.weights import latest_record, load_weights
from transdiff_jax.errors import UserError
from transdiff_jax.storage import checksums

# Each function that a read calls, in the order of the calls.
STAGES = [
    (reading, "warn_of_others"),
    (reading, "read_manifest"),
    (reading, "check_record"),
    (reading, "check_items"),
    (weights, "check_shapes"),
    (reading, "read_record"),
    (weights, "read_params"),
    (items, "_restore"),
    (reading, "_is_whole"),
]


@pytest.fixture(scope="module")
def other(tmp_path_factory, mesh):
    """Another run, with steps 2 and 3 of another state."""
    workdir = tmp_path_factory.mktemp("other")
    runs.save_steps(workdir, runs.make_state(mesh, seed=1), [2, 3])
    return workdir / "checkpoints"


def disturb(monkeypatch, module, name, act, always=False):
    """Calls `act` before the first call of a function, or before each."""
    function, done = getattr(module, name), []

    @functools.wraps(function)
    def disturbed(*args, **keywords):
        if always or not done:
            done.append(True)
            act()
        return function(*args, **keywords)

    monkeypatch.setattr(module, name, disturbed)


@pytest.mark.parametrize(("module", "name"), STAGES, ids=[name for _, name in STAGES])
def test_a_step_that_is_deleted_is_read_again(workdir, other, mesh, monkeypatch, caplog, recwarn, module, name):
    folder = workdir / "checkpoints"
    shutil.rmtree(folder / "1")

    def go_on():
        """The trainer commits step 3 and deletes step 2, of which half is left for a while."""
        shutil.copytree(other / "3", folder / "3.orbax-checkpoint-tmp")
        (folder / "3.orbax-checkpoint-tmp").rename(folder / "3")
        shutil.rmtree(folder / "2" / "ema_0" / "ocdbt.process_0")
        (folder / "2" / "ema_0" / "manifest.ocdbt").unlink()

    disturb(monkeypatch, module, name, go_on)
    read = load_weights(workdir, mesh)
    assert read.step == 3
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    gc.collect()
    assert not [warning for warning in recwarn if "loop is closed" in str(warning.message)], "printed tracebacks"
    jax.tree.map(np.testing.assert_array_equal, read.params, runs.make_state(mesh, seed=1).ema[0])


@pytest.mark.parametrize(("module", "name"), STAGES, ids=[name for _, name in STAGES])
def test_a_step_that_is_replaced_is_read_whole(workdir, other, mesh, monkeypatch, module, name):
    folder = workdir / "checkpoints"

    def replace():
        shutil.rmtree(folder / "2")
        shutil.copytree(other / "2", folder / "2")

    disturb(monkeypatch, module, name, replace)
    read = load_weights(workdir, mesh, kind="raw")
    assert (read.step, read.digest) == (2, checksums.sha256(folder / "2" / "manifest.json"))
    jax.tree.map(np.testing.assert_array_equal, read.params, runs.make_state(mesh, seed=1).params)


def test_the_record_of_a_step_that_is_deleted(workdir, monkeypatch):
    disturb(monkeypatch, reading, "read_record", lambda: shutil.rmtree(workdir / "checkpoints" / "2"))
    assert latest_record(workdir) == runs.record_of(1)


def test_a_read_gives_up(workdir, other, mesh, monkeypatch):
    folder = workdir / "checkpoints"
    numbers = iter(range(10, 20))
    disturb(monkeypatch, weights, "read_params", lambda: newer(folder, other, next(numbers)), always=True)
    with pytest.raises(UserError, match=r"deleted or replaced the checkpoint 5 times while it was read; try again"):
        load_weights(workdir, mesh)


def newer(folder, other, step):
    shutil.copytree(other / "3", folder / str(step))
    for path in folder.iterdir():
        if path.name != str(step):
            shutil.rmtree(path)


def test_other_errors_are_not_hidden(workdir, mesh, monkeypatch):
    def broken(*args):
        raise RuntimeError("a bug")

    monkeypatch.setattr(weights, "read_params", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        load_weights(workdir, mesh)


def test_a_step_that_is_asked_for_and_deleted(workdir, mesh, monkeypatch):
    disturb(monkeypatch, weights, "read_params", lambda: shutil.rmtree(workdir / "checkpoints" / "2"))
    with pytest.raises(UserError, match=r"holds no checkpoint of step 2; choose one of \[1\]"):
        load_weights(workdir, mesh, step=2)


@pytest.mark.parametrize(
    ("kind", "rate", "item"), [("ema", None, "ema_0"), ("ema", 0.5, "ema_1"), ("raw", None, "params")]
)
def test_only_what_is_needed_is_hashed_and_read(workdir, state, mesh, monkeypatch, kind, rate, item):
    step, hashed, sha256 = workdir / "checkpoints" / "2", [], checksums.sha256
    monkeypatch.setattr(checksums, "sha256", lambda path: hashed.append(path) or sha256(path))
    load_weights(workdir, mesh, kind=kind, ema_rate=rate)
    assert {path.relative_to(step).parts[0] for path in hashed} == {"run", item}
    assert len(hashed) == len(set(hashed)), "each file once"
    for path in step.iterdir():
        if path.is_dir() and path.name not in ("run", item):
            shutil.rmtree(path)  # so it cannot be read
    read = load_weights(workdir, mesh, kind=kind, ema_rate=rate)
    assert read.step == 2
    expected = {"ema_0": state.ema[0], "ema_1": state.ema[1], "params": state.params}[item]
    jax.tree.map(np.testing.assert_array_equal, read.params, expected)


def test_reading_logs_no_warning(pristine, mesh, caplog):
    load_weights(pristine, mesh)
    latest_record(pristine)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.slow
def test_two_hundred_reads_beside_a_trainer_that_keeps_one_step(tmp_path, mesh, caplog):
    """Each read is bit for bit the step that it names, of which the trainer left a copy elsewhere."""
    run, archive, log = tmp_path / "run", tmp_path / "archive", tmp_path / "log"
    arguments = [
        sys.executable,
        "-m",
        "tests.support.archiving_trainer",
        str(run),
        str(archive),
        str(tmp_path / "data"),
    ]
    process = start(arguments, log)
    try:
        wait_for(lambda: (archive / "checkpoints" / "3").is_dir(), process, log)
        made = []
        with caplog.at_level(logging.INFO):
            for _ in range(50):
                made.append(({}, load_weights(run, mesh)))
                made.append(({"ema_rate": 0.5}, td.load(run, ema_rate=0.5, mesh=mesh).weights))
                made.append(({"kind": "raw"}, load_weights(run, mesh, kind="raw")))
                made.append((None, latest_record(run)))
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(100)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    for how, value in made:
        if how is None:
            assert value == read_record(archive / "checkpoints" / str(value.data["global_next_index"] // 8))
            continue
        kept = load_weights(archive, mesh, step=value.step, **how)
        assert value.name == kept.name
        assert value.digest == kept.digest
        jax.tree.map(np.testing.assert_array_equal, value.params, kept.params)
    assert len({value.step for how, value in made if how is not None}) > 20, "steps came and went"
    assert caplog.text.count("reading again"), "the trainer was never in the way"
