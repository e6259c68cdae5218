"""The command lines as a user runs them, in processes that are killed, terminated, or out of disk space."""

import json
import random
import re
import signal
import time

import jax
import numpy as np
import pytest

from tests.support.commands import (
    ROOT,
    command,
    error_line,
    read_final,
    run,
    sample_set,
    start,
    train_command,
    wait_for,
)

STEPS = 70


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.mark.slow  # a job of two processes does the same in the quick set
def test_killed_and_terminated_runs_end_like_the_undisturbed_one(tmp_path, data):
    straight, disturbed, log = tmp_path / "straight", tmp_path / "disturbed", tmp_path / "log"
    arguments = train_command(disturbed, data, train__steps=STEPS, train__checkpoint_every=10)
    assert run(train_command(straight, data, train__steps=STEPS, train__checkpoint_every=10)).returncode == 0

    process = start(arguments, log)
    wait_for((disturbed / "checkpoints" / "10").exists, process, log)
    process.kill()
    assert process.wait() == -signal.SIGKILL

    process = start(arguments, log)
    wait_for((disturbed / "checkpoints" / "30").exists, process, log)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # some schedulers send it to a process and to its group
    assert process.wait(timeout=120) == 0, log.read_text()
    text = log.read_text()
    assert "resuming from the checkpoint of step" in text
    assert "stopped by SIGTERM: saved step" in text
    assert read_final(disturbed)[0] < STEPS

    assert run(arguments).returncode == 0
    ours, theirs = read_final(disturbed), read_final(straight)
    assert (ours[0], ours[2]) == (theirs[0], theirs[2])
    jax.tree.map(np.testing.assert_array_equal, ours[1], theirs[1])


def newest_step(workdir):
    return max([0, *(int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdigit())])


@pytest.mark.slow
def test_a_storm_of_kills_ends_like_the_undisturbed_run(tmp_path):
    """The network of configs/digits.py, killed in turns after some checkpoints and in the first seconds."""
    straight, disturbed, log = tmp_path / "straight", tmp_path / "disturbed", tmp_path / "log"
    data, draw, kills, steps, every = tmp_path / "data", random.Random(0), 30, 300, 5
    settings = [
        f"--config={ROOT}/configs/digits.py",
        f"--config.data.directory={data}",
        "--config.optimizer.warmup_steps=5",
    ]
    settings += [f"--config.train.steps={steps}", f"--config.train.checkpoint_every={every}"]
    assert run(command("train", f"--workdir={straight}", *settings), timeout=3600).returncode == 0
    reached = []
    for kill in range(kills):
        process = start(command("train", f"--workdir={disturbed}", *settings), log)
        until = newest_step(disturbed) + draw.randint(1, max(1, 2 * (steps - newest_step(disturbed)) // (kills - kill)))
        moment = time.monotonic() + (draw.uniform(0, 15) if kill % 2 else 600)
        while process.poll() is None and time.monotonic() < moment and newest_step(disturbed) < until:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.2))
        process.kill()
        assert process.wait() in (-signal.SIGKILL, 0), log.read_text()
        reached.append(newest_step(disturbed))
    assert reached[kills // 2] < steps, reached
    assert run(command("train", f"--workdir={disturbed}", *settings), timeout=3600).returncode == 0
    ours, theirs = read_final(disturbed), read_final(straight)
    assert theirs[0] == steps
    assert (ours[0], ours[2]) == (theirs[0], theirs[2])
    jax.tree.map(np.testing.assert_array_equal, ours[1], theirs[1])


@pytest.mark.slow  # a job of two processes does the same in the quick set
def test_a_failed_write_ends_in_one_line_and_keeps_what_is_saved(tmp_path, data):
    assert run(train_command(tmp_path / "run", data, train__steps=20)).returncode == 0
    # Mounting a full disk needs rights, so writes beyond 48 KiB fail instead.
    limited = ["bash", "-c", 'ulimit -f 48; exec "$@"', "limited"]
    result = run([*limited, *train_command(tmp_path / "run", data, train__steps=40)])
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "checkpoint of step 40 could not be written" in line
    assert "steps [20] are kept" in line
    assert read_final(tmp_path / "run")[0] == 20
    assert run(train_command(tmp_path / "run", data, train__steps=40)).returncode == 0
    assert read_final(tmp_path / "run")[0] == 40


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    workdir = tmp_path_factory.mktemp("trained")
    assert run(train_command(workdir, data, train__steps=5)).returncode == 0
    return workdir


def test_sample_writes_images_and_a_grid(trained, tmp_path):
    result = run(command("sample", f"--workdir={trained}", f"--out={tmp_path}", "--labels=7,3,7", "--guidance=1.5"))
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == [f"00000{i}.png" for i in range(3)]
    assert (tmp_path / "grid.png").exists()


def test_sample_fuses_two_classes_with_every_other_setting(trained, tmp_path):
    settings = ["--solver=heun", "--steps=4", "--guidance=2", "--guidance_interval=0.2,0.8", "--fuse_fraction=0.3"]
    settings += ["--semantic_similarity", "--guidance_schedule=power_cosine", "--guidance_power=2"]
    arguments = [f"--workdir={trained}", f"--out={tmp_path}", "--fuse=7,3", "--num_samples=5", *settings]
    result = run(command("sample", *arguments))
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "images").iterdir())) == 5
    record = json.loads((tmp_path / "samples.json").read_text())
    assert (record["settings"]["labels"], record["settings"]["fuse_with"]) == ([7] * 5, 3)
    assert (
        record["settings"]["sampling"] | {"solver": "heun", "steps": 4, "fuse_fraction": 0.3}
        == (record["settings"]["sampling"])
    )
    assert set(record["semantic_similarity"]) == {"3", "7", "fused"}
    assert "the same of fused features" in result.stderr


def sample_command(workdir, out, count):
    settings = ["--guidance=1.5", "--steps=50", "--batch_size=20", "--npz"]
    return command("sample", f"--workdir={workdir}", f"--out={out}", f"--num_samples={count}", *settings)


def kill_and_finish(workdir, folder, count, kills, seed):
    """Samples once undisturbed and once killed at random moments, and checks that the sets are the same bytes.

    A job is killed after a number of images that leaves some for the later kills. Every second job, and the last one,
    is killed earlier if a random moment within the run time of the undisturbed job comes first.
    """
    straight, disturbed, log = folder / "straight", folder / "disturbed", folder / "log"
    draw, began = random.Random(seed), time.monotonic()
    assert run(sample_command(workdir, straight, count)).returncode == 0
    duration, images = time.monotonic() - began, []
    for kill in range(kills):
        process, began = start(sample_command(workdir, disturbed, count), log), time.monotonic()
        present = lambda: len(list(disturbed.glob("images/0*.png")))  # noqa: E731
        last = kill == kills - 1
        moment = began + draw.uniform(0, duration) if kill % 2 or last else float("inf")
        until = count + 1 if last else present() + draw.randint(1, max(1, 2 * (count - present()) // (kills - kill)))
        while process.poll() is None and time.monotonic() < moment and present() < until:
            time.sleep(0.001)
        process.kill()
        assert process.wait() in (-signal.SIGKILL, 0), log.read_text()
        images.append(present())
    assert run(sample_command(workdir, disturbed, count)).returncode == 0
    ours, theirs = sample_set(disturbed), sample_set(straight)
    assert len(theirs) == count + 3
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if ours[name] != theirs[name]] == []
    records = [json.loads((out / "samples.json").read_text()) for out in (straight, disturbed)]
    assert records[0]["shards"] == records[1]["shards"]
    return images


@pytest.mark.slow  # jobs of one and two processes are killed in the quick set
def test_a_sampling_job_killed_at_random_moments_ends_with_the_same_bytes(trained, tmp_path):
    images = kill_and_finish(trained, tmp_path, count=100, kills=4, seed=0)
    assert any(0 < count < 100 for count in images)


@pytest.mark.slow  # generate_test.py fills a disk in the quick set
def test_a_full_disk_stops_sampling_in_one_line(trained, tmp_path):
    arguments = sample_command(trained, tmp_path / "out", 150)
    # Writes beyond 8 KiB fail: those of the journal, which has a line for each image.
    result = run(["bash", "-c", 'ulimit -f 8; exec "$@"', "limited", *arguments])
    assert re.search(r"images/000\d+\.png could not be written \(File too large\): free space", error_line(result))
    written = len(list((tmp_path / "out" / "images").glob("0*.png")))
    assert 50 < written < 150
    assert run(arguments).returncode == 0
    record = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert 150 - written <= record["images_made"] < 100, "written images are kept"
