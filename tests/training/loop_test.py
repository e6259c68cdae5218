import dataclasses
import json

import jax
import numpy as np
import pytest

from tests.support.configs import tiny_config
from tests.support.events import read_events
from tests.support.machines import shrink
from transdiff_jax.checkpoints.store import CheckpointStore
from transdiff_jax.checkpoints.weights import latest_record, load_weights
from transdiff_jax.config import MeshConfig
from transdiff_jax.errors import UserError
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.training.loop import train
from transdiff_jax.training.metric_writers import read_metrics
from transdiff_jax.training.state import abstract_state


@pytest.fixture(scope="module")
def data_directory(tmp_path_factory):
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture
def tiny(data_directory):
    return lambda mrar=False, **sections: tiny_config(
        mrar, data={"directory": data_directory}, **{"train": {}, **sections}
    )


def final_state(workdir, config):
    store = CheckpointStore(workdir, keep_last=1)
    step = store.newest_intact()
    state = store.read_state(step, abstract_state(config, make_mesh(MeshConfig())))
    record = store.read_record(step)
    store.close()
    return jax.device_get(state), record


def test_stopping_and_resuming_is_exact(tiny, tmp_path):
    config = tiny(optimizer={"warmup_steps": 2, "schedule": "cosine"})
    train(config, tmp_path / "straight")
    # Saves after every step, loses the last two steps, and trains them again.
    first = dataclasses.replace(config, train=dataclasses.replace(config.train, checkpoint_every=1, keep_last=9))
    train(first, tmp_path / "resumed")
    for step in (3, 4):
        store = CheckpointStore(tmp_path / "resumed", keep_last=9)
        store.close()
        (tmp_path / "resumed" / "checkpoints" / str(step)).rename(tmp_path / f"gone{step}")
    train(config, tmp_path / "resumed")
    ours, our_record = final_state(tmp_path / "resumed", config)
    theirs, their_record = final_state(tmp_path / "straight", config)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert our_record.data == their_record.data == {"global_next_index": 4 * config.train.batch_size}
    paths = [tmp_path / name / "metrics.jsonl" for name in ("resumed", "straight")]
    assert read_metrics(paths[0], "loss") == read_metrics(paths[1], "loss")


def test_a_finished_run_is_left_alone(tiny, tmp_path, caplog):
    train(tiny(), tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text()
    with caplog.at_level("INFO"):
        train(tiny(), tmp_path)
    assert "already trained to step 4" in caplog.text
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_training_learns(tiny, tmp_path):
    config = tiny(train={"steps": 60, "batch_size": 32, "checkpoint_every": 60}, optimizer={"learning_rate": 0.03})
    train(config, tmp_path)
    _, losses = read_metrics(tmp_path / "metrics.jsonl", "loss")
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:3])


def test_what_is_logged(tiny, tmp_path):
    config = tiny(train={"ema_rates": (0.9, 0.5), "sample_every": 4})
    train(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    expected = {"loss", "flow_loss", "gradient_norm", "learning_rate", "skipped_steps", "semantic_similarity"}
    expected |= {"ema_distance/0.9", "ema_distance/0.5"}
    assert expected <= set(lines[-1])
    assert any(name.startswith("loss_by_time/") for name in lines[-1])
    (events,) = tmp_path.glob("events.out.tfevents.*")
    pictures = [value for event in read_events(events) for value in event.summary.value if value.tag == "samples"]
    assert len(pictures) == 1


def test_mrar_is_fine_tuned_from_one_step(tiny, tmp_path, caplog):
    train(tiny(), tmp_path / "one_step")
    config = tiny(mrar=True, train={"init_from": str(tmp_path / "one_step")}, optimizer={"learning_rate": 1e-12})
    with caplog.at_level("INFO"):
        train(config, tmp_path / "mrar")
    assert "fine-tuning from step 4" in caplog.text
    assert caplog.text.count("starts fresh") == 2
    mesh = make_mesh(MeshConfig())
    source, tuned = (load_weights(tmp_path / name, mesh).params for name in ("one_step", "mrar"))
    for network, table in (("decoder", "position_embedding"), ("encoder", "class_embedding")):
        np.testing.assert_allclose(tuned[network][table], source[network][table], atol=1e-6)


def test_the_run_stops_when_nothing_is_finite(tiny, tmp_path, caplog):
    config = tiny(train={"steps": 50, "max_nonfinite_steps": 3}, optimizer={"learning_rate": 1e37})
    with pytest.raises(UserError, match=r"not finite in each of the last 3 steps, since step \d+ "):
        train(config, tmp_path)
    assert "records of the batch: [" in caplog.text


def test_a_checkpoint_of_another_architecture(tiny, tmp_path):
    train(tiny(train={"steps": 1}), tmp_path)
    with pytest.raises(UserError, match=r"was trained with config.model.width=16, not 32; choose another"):
        train(tiny(model={"width": 32}), tmp_path)


def test_a_batch_that_does_not_divide_by_the_mesh(tiny, tmp_path):
    with pytest.raises(UserError, match=r"config\.train\.batch_size"):
        train(tiny(train={"batch_size": 12}), tmp_path)
    with pytest.raises(UserError, match=r"config\.sampling\.batch_size=4 must be divisible by 8"):
        train(tiny(sampling={"batch_size": 4}, train={"sample_every": 1}), tmp_path)
    with pytest.raises(
        UserError, match=r"config.train.batch_size / config.train.accumulation=4 must be divisible by 8"
    ):
        train(tiny(train={"batch_size": 16, "accumulation": 4}), tmp_path)


def test_a_resumed_run_adds_up_its_time_and_says_what_changed(tiny, tmp_path, caplog):
    train(tiny(train={"steps": 2}), tmp_path)
    first = latest_record(tmp_path).train_seconds
    train(tiny(optimizer={"clip_norm": 2.0}), tmp_path)
    assert latest_record(tmp_path).train_seconds > first > 0
    warnings = [record.getMessage() for record in caplog.records if "changed from" in record.getMessage()]
    assert sorted(warnings) == [
        "resuming with config.optimizer.clip_norm changed from 3.0 to 2.0",
        "resuming with config.train.steps changed from 2 to 4",
    ]


def test_a_run_that_no_device_holds_is_refused_before_anything_is_made(tiny, tmp_path, monkeypatch):
    shrink(monkeypatch, 2**20)
    for field, what in (({"batch_size": 2**20}, "a training batch"), ({"batch_size": 2**12}, "training")):
        with pytest.raises(UserError, match=f"^{what} takes at least .* MiB of "):
            train(tiny(train=field), tmp_path / "run")
    config = tiny(train={"sample_every": 2}, sampling={"batch_size": 2**12})
    shrink(monkeypatch, 2**23)
    with pytest.raises(UserError, match=r"^sampling takes at least"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_workdir_is_not_the_current_folder(tiny, name):
    with pytest.raises(UserError, match=r"^workdir= is empty"):
        train(tiny(), name)
