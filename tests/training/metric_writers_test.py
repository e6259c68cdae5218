import numpy as np
import pytest

from tests.support.events import read_events
from transdiff_jax.training.metric_writers import JsonLinesWriter, make_writer, read_metrics


def test_scalars_go_to_both_files_and_images_to_the_events(tmp_path):
    writer = make_writer(tmp_path)
    writer.write_scalars(5, {"loss": np.float32(0.5)})
    writer.write_images(5, {"samples": np.zeros((4, 4, 1), np.uint8)})
    writer.close()
    assert read_metrics(tmp_path / "metrics.jsonl", "loss") == ([5], [0.5])
    (events,) = tmp_path.glob("events.out.tfevents.*")
    values = {value.tag: value for event in read_events(events) for value in event.summary.value}
    assert values["loss"].simple_value == 0.5
    assert (values["samples"].image.height, values["samples"].image.width) == (4, 4)


def test_a_resumed_run_repeats_steps_and_may_find_a_cut_off_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n{"step": 3, "lo')
    writer = JsonLinesWriter(path)
    writer.write_scalars(2, {"loss": 2.5})
    writer.write_scalars(3, {"loss": 1.5, "other": 1})
    writer.close()
    assert read_metrics(path, "loss") == ([1, 2, 3], [3.0, 2.5, 1.5])
    assert read_metrics(path, "other") == ([3], [1.0])


def test_kinds_that_are_not_written_raise(tmp_path):
    writer = JsonLinesWriter(tmp_path / "metrics.jsonl")
    with pytest.raises(TypeError, match="does not write histograms"):
        writer.write_histograms(1, {"weights": np.zeros(3)})
