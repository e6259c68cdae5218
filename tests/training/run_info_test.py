import json
import shutil

import jax
import pytest

from tests.support import runs
from tests.support.damage import flip_byte
from transdiff_jax.cli import info
from transdiff_jax.config import MeshConfig
from transdiff_jax.errors import UserError
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.training.run_info import config_changes, describe_run, info_lines, parameter_count


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("pristine")
    runs.save_steps(workdir, runs.make_state(make_mesh(MeshConfig(), jax.devices()[:1])), [1, 2])
    return workdir


@pytest.fixture
def workdir(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "run")


def write_certificate(workdir, step, **changes):
    scores = {"fid": 3.25, "kid": None}
    value = {
        "protocol": {"name": "transdiff"},
        "num_samples": 10,
        "scores": scores,
        "date": "2026-11-27T00:00:00+00:00",
    }
    (workdir / "evaluation").mkdir(exist_ok=True)
    (workdir / "evaluation" / f"{step}.json").write_text(json.dumps(value | changes))


def test_a_run_explains_itself(workdir):
    write_certificate(workdir, 10)
    write_certificate(workdir, 2, scores=5)  # no certificate of ours
    write_certificate(workdir, 9)
    (workdir / "metrics.jsonl").write_text('{"step": 9, "eval/fid": 3.25}\n{"step": 10, "loss": 0.5}\n{"step": 11, "lo')
    (workdir / "damaged" / "5").mkdir(parents=True)
    found = describe_run(workdir)
    json.dumps(found)
    assert found["step"] == 2
    assert [(step["step"], step["damage"]) for step in found["steps"]] == [(1, None), (2, None)]
    assert 0 < found["steps"][0]["bytes"] < found["bytes"]
    assert found["set_aside"] == ["5"]
    assert found["config_changes"]["model.width"] == 16
    assert "model.label_dropout" not in found["config_changes"]
    assert [entry["step"] for entry in found["scores"]] == [9, 10]
    assert found["metrics"] == {"eval/fid": {"step": 9, "value": 3.25}, "loss": {"step": 10, "value": 0.5}}
    assert found["record"]["train_seconds"] == 3.0
    text = "\n".join(info_lines(found))
    for line in (
        "step 2 of 4, trained for 0:00:03",
        "config.model.width = 16",
        "damaged checkpoint 5: moved to damaged/5",
        "scores at step 10 (transdiff, 10 samples): fid 3.25",
        "loss 0.5 (step 10)",
    ):
        assert line in text.splitlines()


def test_damage_is_named_and_the_step_before_it_describes_the_run(workdir):
    flip_byte(workdir / "checkpoints" / "2")
    found = describe_run(workdir)
    assert found["step"] == 1
    assert found["steps"][0]["damage"] is None
    assert found["steps"][1]["damage"].endswith("has changed")


def test_a_run_without_an_intact_step_still_shows_the_damage(workdir):
    for step in ("1", "2"):
        (workdir / "checkpoints" / step / "manifest.json").unlink()
    found = describe_run(workdir)
    assert found["record"] is None
    assert "checkpoint 2: " in info_lines(found)[-1]
    assert "damaged: manifest.json is missing" in info_lines(found)[-1]


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoints"):
        describe_run(tmp_path)


def test_nothing_in_the_folder_changes(workdir):
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    describe_run(workdir)
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_the_count_is_that_of_the_arrays(workdir):
    state = runs.make_state(make_mesh(MeshConfig(), jax.devices()[:1]))
    assert parameter_count(runs.CONFIG.model) == sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert config_changes(type(runs.CONFIG)()) == {}


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command(workdir, capsys, as_json):
    info.FLAGS(["info", f"--workdir={workdir}", f"--json={as_json}"])
    info.main()
    printed = capsys.readouterr().out
    assert (json.loads(printed)["step"] == 2) if as_json else "step 2 of 4" in printed
