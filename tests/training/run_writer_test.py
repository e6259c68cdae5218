import dataclasses

import numpy as np
import pytest

from tests.support.events import read_events
from transdiff_jax.config import Config, TrainConfig
from transdiff_jax.errors import UserError
from transdiff_jax.training.metric_writers import read_metrics
from transdiff_jax.training.run_writer import make_writer


def test_scalars_go_to_both_files_and_images_to_the_events(tmp_path):
    writer = make_writer(Config(), tmp_path)
    writer.write_scalars(5, {"loss": np.float32(0.5)})
    writer.write_images(5, {"samples": np.zeros((4, 4, 1), np.uint8)})
    writer.close()
    assert read_metrics(tmp_path / "metrics.jsonl", "loss") == ([5], [0.5])
    (events,) = tmp_path.glob("events.out.tfevents.*")
    values = {value.tag: value for event in read_events(events) for value in event.summary.value}
    assert values["loss"].simple_value == 0.5
    assert (values["samples"].image.height, values["samples"].image.width) == (4, 4)


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.* could not be written"):
        make_writer(Config(), tmp_path / "nowhere")


def test_without_loggers_there_is_metrics_jsonl_alone(tmp_path):
    writer = make_writer(dataclasses.replace(Config(), train=TrainConfig(loggers=())), tmp_path)
    writer.write_scalars(5, {"loss": 0.5})
    writer.write_images(5, {"samples": np.zeros((4, 4, 1), np.uint8)})
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
