import os
import resource
import signal
import threading

import numpy as np
import pytest

from transdiff_jax.errors import UserError
from transdiff_jax.training import metric_writers
from transdiff_jax.training.metric_writers import JsonLinesWriter, TensorBoardWriter, read_metrics


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


@pytest.fixture
def small_files():
    """Lets files grow to 4 KiB only, as if the disk were full then."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("kind", [TensorBoardWriter, JsonLinesWriter])
def test_a_full_disk_is_one_error_in_the_callers_thread(tmp_path, monkeypatch, small_files, kind):
    monkeypatch.setattr(metric_writers, "FLUSH_SECONDS", 0)
    writer = kind(tmp_path if kind is TensorBoardWriter else tmp_path / "metrics.jsonl")
    threads = threading.active_count()
    with pytest.raises(UserError, match=r"could not be written \(File too large\): free space"):
        for step in range(1000):
            writer.write_scalars(step, {"loss": 1.0})
    with pytest.raises(UserError, match="File too large"):
        writer.close()
    assert threading.active_count() == threads


def test_damaged_lines_are_skipped(tmp_path):
    lines = ['{"step": 1, "loss": 2.0}', "[" * 10**5, "5", '{"step": "2", "loss": 1}', '{"step": 3, "loss": null}', "{"]
    (tmp_path / "metrics.jsonl").write_bytes("\n".join(lines).encode() + b"\n\xff\n")
    assert read_metrics(tmp_path / "metrics.jsonl", "loss") == ([1], [2.0])
    with pytest.raises(UserError, match=r"absent\.jsonl cannot be read: No such file"):
        read_metrics(tmp_path / "absent.jsonl", "loss")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_metrics_go_into_a_file_only(tmp_path, make):
    make(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match="is not a file"):
        JsonLinesWriter(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match="is not a file"):
        read_metrics(tmp_path / "metrics.jsonl", "loss")
