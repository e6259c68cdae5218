"""Training in two processes whose devices take turns in the mesh equals training in one process."""

import sys

import jax
import numpy as np

from tests.multiprocess.training_worker import SETTINGS
from tests.support.commands import read_final
from tests.support.configs import tiny_config
from tests.support.jobs import Job
from transdiff_jax.training.loop import train
from transdiff_jax.training.metric_writers import read_metrics


def test_rows_go_to_the_devices_that_hold_them(tmp_path):
    arguments = [sys.executable, "-m", "tests.multiprocess.training_worker", str(tmp_path)]
    job = Job(tmp_path, 2, arguments, JAX_NUM_CPU_DEVICES=str(len(jax.devices()) // 2))
    assert job.end() == 0, job.text()
    train(tiny_config(data={"directory": str(tmp_path)}, **SETTINGS), tmp_path / "alone")
    ours, theirs = (read_metrics(tmp_path / name / "metrics.jsonl", "loss") for name in ("job", "alone"))
    assert ours[0] == theirs[0] == [1, 2, 3, 4]
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5)
    (step, state, data), (other_step, other_state, other_data) = (read_final(tmp_path / n) for n in ("job", "alone"))
    assert (step, data) == (other_step, other_data)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), state, other_state)
