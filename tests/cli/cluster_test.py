"""Jobs of several processes as a user runs them: resumed elsewhere, preempted, killed, failing, sampling."""

import contextlib
import json
import random
import re
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import pytest

from tests.checkpoint_test import flip_byte
from tests.cli.processes_test import ROOT, command, environment, read_final, sample_set, train_command
from transdiff_jax.checkpoint import latest_record
from transdiff_jax.config import make_config
from transdiff_jax.training.loop import train
from transdiff_jax.training.metric_writers import read_metrics

STEPS, HALF = 24, 12
# A save after few steps, so that a kill loses few; a schedule that knows nothing of the end.
SETTINGS = {
    **{"train__steps": STEPS, "train__checkpoint_every": 4, "train__keep_last": 99},
    "optimizer__schedule": "constant",
}


def cluster(count, arguments):
    return [str(ROOT / "launch" / "local_cluster.sh"), str(count), "--", *arguments]


class Job:
    """A job that runs, with its output in a file."""

    def __init__(self, folder, count, arguments, **variables):
        self.log = folder / f"log-{time.monotonic_ns()}"
        self.module = arguments[2]  # after the interpreter and -m
        with self.log.open("w") as log:
            self.launcher = subprocess.Popen(
                cluster(count, arguments), cwd=ROOT, env=environment() | variables, stdout=log, stderr=subprocess.STDOUT
            )

    def text(self):
        return self.log.read_text()

    def processes(self):
        """Ids of the processes of the job, by their numbers."""
        listed = subprocess.run(
            ["ps", "--ppid", str(self.launcher.pid), "-o", "pid=,args="], capture_output=True, text=True
        ).stdout
        return sorted(int(line.split()[0]) for line in listed.splitlines() if self.module in line)

    def wait_for(self, pattern):
        deadline = time.monotonic() + 240
        while not re.search(pattern, self.text()):
            assert self.launcher.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.01)

    def end(self, timeout=240):
        try:
            return self.launcher.wait(timeout)
        finally:
            for process in self.processes():
                subprocess.run(["kill", "-KILL", str(process)])
            self.launcher.kill()


def finish(folder, count, arguments, **variables):
    job = Job(folder, count, arguments, **variables)
    assert job.end() == 0, job.text()
    return job.text()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def straight(tmp_path_factory, data):
    """An undisturbed run of two processes; the first thing they do at once is to prepare the dataset."""
    folder = tmp_path_factory.mktemp("straight")
    text = finish(folder, 2, train_command(folder / "run", data, **SETTINGS))
    assert f"[0] {text.split('[0] ')[-1]}".count(f"trained to step {STEPS}") == 1
    assert "[1] " not in re.sub(r"\[1\] (?!\d\d:\d\d:\d\d).*", "", text), "only the first process tells"
    return folder / "run"


def assert_equal_runs(ours, theirs):
    ours, theirs = read_final(ours), read_final(theirs)
    assert (ours[0], ours[2]) == (theirs[0], theirs[2])
    jax.tree.map(np.testing.assert_array_equal, ours[1], theirs[1])


def copy_until(run, target, step):
    """A run with the checkpoints of another one up to a step."""
    for folder in sorted((run / "checkpoints").iterdir()):
        if folder.name.isdigit() and int(folder.name) <= step:
            shutil.copytree(folder, target / "checkpoints" / folder.name)
    return target


def losses(workdir, after):
    steps, values = read_metrics(workdir / "metrics.jsonl", "loss")
    return {step: value for step, value in zip(steps, values, strict=True) if step > after}


def test_the_manifest_lists_the_files_of_every_process(straight):
    manifest = json.loads((straight / "checkpoints" / str(STEPS) / "manifest.json").read_text())
    for process in range(2):
        assert any(name.startswith(f"state/ocdbt.process_{process}/d/") for name in manifest)
    assert len(list(straight.glob("events.*"))) == 1


def test_resumed_in_one_process_on_another_mesh_it_has_the_same_losses(straight, data, tmp_path):
    run = copy_until(straight, tmp_path / "run", HALF)
    config = latest_record(run).config
    values = config.to_dict()
    values["mesh"] = {"data": 2, "fsdp": 2, "tensor": 2}
    train(make_config(values), run)
    ours, theirs = losses(run, HALF), losses(straight, HALF)
    assert list(ours) == list(range(HALF + 1, STEPS + 1))
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), atol=1e-5)


def test_resumed_in_four_processes_that_share_rows_it_has_the_same_losses(straight, data, tmp_path):
    run = copy_until(straight, tmp_path / "run", HALF)
    settings = SETTINGS | {"train__steps": HALF + 3, "mesh__fsdp": 2, "mesh__tensor": 2, "mesh__data": 1}
    text = finish(tmp_path, 4, train_command(run, data, **settings))
    assert f"resuming from the checkpoint of step {HALF}" in text
    ours, theirs = losses(run, HALF), losses(straight, HALF)
    assert list(ours) == list(range(HALF + 1, HALF + 4))
    np.testing.assert_allclose(list(ours.values()), list(theirs.values())[:3], atol=1e-5)


def test_preempted_killed_and_damaged_it_ends_like_the_undisturbed_run(straight, data, tmp_path):
    run, draw = tmp_path / "run", random.Random(0)
    arguments = train_command(run, data, **SETTINGS)

    # SIGTERM to one process: all save the same step.
    job = Job(tmp_path, 2, arguments)
    job.wait_for(r"step 3:")
    subprocess.run(["kill", "-TERM", str(draw.choice(job.processes()))])
    assert job.end() == 0, job.text()
    (stopped,) = re.findall(r"stopped by a signal to one of the processes: saved step (\d+)", job.text())
    assert read_final(run)[0] == int(stopped) < STEPS

    # kill -9 of one: the others end, in one line.
    job = Job(tmp_path, 2, arguments)
    job.wait_for(rf"step {int(stopped) + 1}:")
    subprocess.run(["kill", "-KILL", str(draw.choice(job.processes()))])
    began = time.monotonic()
    assert job.end() == 128 + signal.SIGKILL
    assert time.monotonic() - began < 15
    assert re.search(r"\[cluster\] process \d ended with exit code 137: stopping the others", job.text())

    # SIGTERM to all, as schedulers send it.
    job = Job(tmp_path, 2, arguments)
    job.wait_for(r"step \d+: loss")  # so that there is something new to save
    job.launcher.send_signal(signal.SIGTERM)
    assert job.end() == 0, job.text()
    # The step that all agree on may be the last one, if few are left.
    assert re.search(rf"the same command resumes|trained to step {STEPS}", job.text())

    # A flipped bit in the newest checkpoint.
    steps = sorted(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    flip_byte(run / "checkpoints" / str(steps[-1]))
    text = finish(tmp_path, 2, arguments)
    assert f"checkpoint of step {steps[-1]} in" in text
    assert f"resuming from the checkpoint of step {steps[-2]}" in text
    assert_equal_runs(run, straight)


def kill_at_random_moments(run, folder, data, kills, seed):
    """Kills one process of two, so many times, by turns in the job's first seconds and in its steps; then lets it end.

    Returns the exit codes of the jobs that were killed, and the newest step after each.
    """
    draw, codes, reached = random.Random(seed), [], []
    arguments = train_command(run, data, **SETTINGS)
    for kill in range(kills):
        job = Job(folder, 2, arguments)
        if kill % 2:
            job.wait_for("training from step|nothing to do")
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.launcher.wait(draw.uniform(0, 3 if kill % 2 else 15))
        for process in job.processes()[draw.randrange(2) :][:1]:
            subprocess.run(["kill", "-KILL", str(process)])
        codes.append(job.end())
        reached.append(max([0, *(int(path.name) for path in run.glob("checkpoints/*") if path.name.isdigit())]))
    finish(folder, 2, arguments)
    return codes, reached


def test_a_storm_of_kills_ends_like_the_undisturbed_run(straight, data, tmp_path):
    codes, _ = kill_at_random_moments(tmp_path / "run", tmp_path, data, kills=4, seed=0)
    assert any(codes), "no kill found a process"
    assert_equal_runs(tmp_path / "run", straight)


def test_an_error_in_one_process_ends_all_with_its_line(straight, data, tmp_path):
    run = copy_until(straight, tmp_path / "run", 4)
    (run / "unreadable_records.1.json").write_text("nonsense")
    job = Job(tmp_path, 2, train_command(run, data, **SETTINGS))
    assert job.end(120) == 2, job.text()
    assert re.search(r"^\[1\] error: .*unreadable_records\.1\.json is no report", job.text(), re.MULTILINE)
    assert "Traceback" not in job.text()


def test_an_error_of_the_first_process_ends_all_with_its_line(straight, data, tmp_path):
    run = copy_until(straight, tmp_path / "run", 4)
    flip_byte(run / "checkpoints" / "4")
    job = Job(tmp_path, 2, train_command(run, data, **SETTINGS))
    assert job.end(120) == 2, job.text()
    assert re.search(r"^\[0\] error: .* holds no intact checkpoint", job.text(), re.MULTILINE)
    assert "[1] error: the job was stopped by its first process" in job.text()


def test_two_processes_sample_the_same_bytes_as_one(straight, tmp_path):
    sets = []
    for count, devices in ((1, 2), (2, 1)):
        out = tmp_path / f"out{count}"
        settings = ["--num_samples=20", "--batch_size=8", "--npz"]
        arguments = command("sample", f"--workdir={straight}", f"--out={out}", *settings)
        finish(tmp_path, count, arguments, JAX_NUM_CPU_DEVICES=str(devices))
        assert json.loads((out / "samples.json").read_text())["runs"][0]["processes"] == count
        sets.append(sample_set(out))
    assert sets[0] == sets[1]
