"""Command lines on a bucket, in processes that are killed, beside each other, and in jobs of several processes."""

import os
import signal

import jax
import numpy as np
import pytest

from tests.support.commands import command, error_line, read_final, run, start, train_command, wait_for
from tests.support.damage import flip_byte
from tests.support.jobs import Job, finish
from transdiff_jax.checkpoints.step_names import saved_steps
from transdiff_jax.storage import leases
from transdiff_jax.storage.checksums import find_damage

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setenv(leases.SECONDS, "4")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def assert_same_run(ours, theirs):
    ours, theirs = read_final(ours), read_final(theirs)
    assert (ours[0], ours[2]) == (theirs[0], theirs[2])
    jax.tree.map(np.testing.assert_array_equal, ours[1], theirs[1])


def newest(workdir):
    return max([0, *saved_steps(workdir / "checkpoints")])


def test_ten_kills_and_a_flipped_byte_end_like_the_undisturbed_local_run(bucket, tmp_path, data):
    steps = {"train__steps": 300, "train__checkpoint_every": 5}
    assert run(train_command(tmp_path / "straight", data, **steps)).returncode == 0
    arguments, log = train_command(bucket / "run", data, **steps), tmp_path / "log"
    for _ in range(10):
        process, before = start(arguments, log), newest(bucket / "run")
        wait_for(lambda before=before: newest(bucket / "run") > before, process, log)
        process.kill()
        assert process.wait() == -signal.SIGKILL, log.read_text()
    flip_byte(bucket / "run" / "checkpoints" / str(newest(bucket / "run")))
    result = run(arguments)
    assert result.returncode == 0, result.stderr
    assert "is damaged" in result.stderr
    assert "its holder is silent and counts as dead" in result.stderr
    assert_same_run(bucket / "run", tmp_path / "straight")
    assert not (bucket / "run" / ".lock").exists()


def test_of_two_jobs_one_is_refused_and_a_stopped_one_notices(bucket, tmp_path, data):
    arguments, log = train_command(bucket / "run", data, train__steps=100000), tmp_path / "log"
    process = start(arguments, log)
    try:
        wait_for(lambda: newest(bucket / "run"), process, log)
        assert "is in use by another process" in error_line(run(arguments))
        process.send_signal(signal.SIGSTOP)
        second = start(arguments, tmp_path / "second")
        wait_for(lambda: "takes over" in (tmp_path / "second").read_text(), second, tmp_path / "second")
        process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=120) == 2, log.read_text()
        assert "was taken over by another process" in log.read_text()
        before = newest(bucket / "run")
        wait_for(lambda: newest(bucket / "run") > before, second, tmp_path / "second")
        second.send_signal(signal.SIGTERM)
        assert second.wait(timeout=120) == 0, (tmp_path / "second").read_text()
    finally:
        process.kill()
    assert all(
        find_damage(bucket / "run" / "checkpoints" / str(step)) is None
        for step in saved_steps(bucket / "run" / "checkpoints")
    )


def test_two_processes_train_on_a_bucket_after_a_kill(bucket, tmp_path, data):
    settings = {"train__steps": 60, "train__checkpoint_every": 10}
    finish(tmp_path, 2, train_command(tmp_path / "straight", data, **settings))
    job = Job(tmp_path, 2, train_command(bucket / "run", data, **settings))
    try:
        job.wait_until(lambda: newest(bucket / "run"))
        for process in job.processes():
            os.kill(process, signal.SIGKILL)
    finally:
        job.end()
    finish(tmp_path, 2, train_command(bucket / "run", data, **settings))
    assert_same_run(bucket / "run", tmp_path / "straight")


def test_three_thousand_samples_with_kills_are_those_of_a_local_set(bucket, tmp_path, data):
    assert run(train_command(tmp_path / "run", data, train__steps=5)).returncode == 0
    settings = ["--num_samples=3000", "--batch_size=100", "--format=zip"]
    local, there = tmp_path / "local", bucket / "samples"
    assert run(command("sample", f"--workdir={tmp_path}/run", f"--out={local}", *settings)).returncode == 0
    arguments, log = command("sample", f"--workdir={tmp_path}/run", f"--out={there}", *settings), tmp_path / "log"
    for archives in (1, 2):
        process = start(arguments, log)
        wait_for(lambda count=archives: len(list((there / "images").iterdir())) >= count, process, log)
        process.kill()
        process.wait()
    assert run(arguments).returncode == 0
    files = {name: (there / name).read_bytes() for name in there.sizes() if name != "samples.json"}
    assert files.keys() == {*(f"images/00{k}000.zip" for k in range(3)), "grid.png", "SHA256SUMS"}
    assert files == {name: (local / name).read_bytes() for name in files}
