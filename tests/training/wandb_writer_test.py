import sys

import numpy as np
import pytest

from tests.support.configs import tiny_config
from tests.support.wandb_files import history, read_records
from transdiff_jax.errors import UserError
from transdiff_jax.training import wandb_writer
from transdiff_jax.training.run_writer import make_writer
from transdiff_jax.training.wandb_writer import WandbWriter, require_wandb

CONFIG = tiny_config(train={"loggers": ("wandb",)})


@pytest.fixture
def offline(monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    for name in ("WANDB_PROJECT", "WANDB_NAME", "WANDB_DIR", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


def runs(folder):
    return [read_records(path) for path in sorted((folder / "wandb").glob("offline-run-*"))]


def test_a_resumed_run_goes_on_under_its_id(offline, tmp_path):
    workdir = tmp_path / "my_run"
    workdir.mkdir()
    writer = make_writer(CONFIG, workdir)
    writer.write_scalars(5, {"loss": np.float32(0.5)})
    writer.write_images(5, {"samples": np.zeros((4, 4, 1), np.uint8)})
    writer.close()
    with pytest.raises(ZeroDivisionError):
        writer = make_writer(CONFIG, workdir)
        try:
            writer.write_scalars(3, {"loss": 0.25})
            raise ZeroDivisionError
        finally:
            writer.close()
    first, second = runs(workdir)
    begun = [record.run for record in (*first, *second) if record.HasField("run")]
    assert {(run.project, run.display_name, run.run_id) for run in begun} == {
        ("transdiff_jax", "my_run", wandb_writer._run_id(workdir))
    }
    settings = {update.key: update.value_json for update in begun[0].config.update}
    assert '"width":16' in settings["model"].replace(" ", "")
    numbers, picture = history(first)
    assert (numbers["step"], numbers["loss"], picture["step"]) == (5, 0.5, 5)
    assert (picture["samples.width"], picture["samples.height"]) == (4, 4)
    assert [(entry["step"], entry["loss"]) for entry in history(second)] == [(3, 0.25)], "a step may come again"
    ends = [record.exit.exit_code for record in (*first, *second) if record.HasField("exit")]
    assert ends == [0, 1]


def test_the_variables_of_wandb_count_and_a_bucket_gets_the_id_alone(offline, bucket, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_NAME", "named")
    monkeypatch.setattr(wandb_writer.tempfile, "mkdtemp", lambda prefix: str(tmp_path))
    writer = WandbWriter(CONFIG, bucket)
    writer.write_scalars(1, {"loss": 1.0})
    writer.close()
    assert [path.name for path in bucket.iterdir()] == ["wandb_run.json"]
    ((run, *_),) = [[record.run for record in records if record.HasField("run")] for records in runs(tmp_path)]
    assert (run.project, run.display_name, run.run_id) == ("mine", "named", wandb_writer._run_id(bucket))


def test_without_a_key_it_is_one_line(offline, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    wandb = require_wandb()
    wandb.teardown()  # it reads the variables once
    with pytest.raises(UserError, match=r"^wandb: No API key configured\..*\(WANDB_MODE=offline asks no server\)$"):
        WandbWriter(CONFIG, tmp_path)
    wandb.teardown()


def test_training_goes_on_when_wandbs_process_has_ended(offline, tmp_path, caplog):
    class Gone:
        calls = 0

        def log(self, values):
            self.calls += 1
            raise ConnectionResetError("Connection lost")

    writer = WandbWriter(CONFIG, tmp_path)
    run, writer._run = writer._run, Gone()
    gone = writer._run
    writer.write_scalars(1, {"loss": 1.0})
    writer.write_scalars(2, {"loss": 1.0})
    writer.close()
    assert gone.calls == 1
    assert "wandb has failed (Connection lost): nothing more goes there" in caplog.text
    run.finish()


def test_wandb_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        UserError, match=r'^config\.train\.loggers names "wandb", .*pip install wandb \(the extra wandb'
    ):
        require_wandb()


@pytest.mark.parametrize("content", ["{", '{"id": 5}', '{"id": "a/b"}', "{}"])
def test_a_damaged_id_is_one_line(tmp_path, content):
    (tmp_path / "wandb_run.json").write_text(content)
    with pytest.raises(UserError, match=r"wandb_run\.json .*: remove it to start another"):
        wandb_writer._run_id(tmp_path)
