"""Jobs of several processes as a user runs them: resumed elsewhere, preempted, killed, failing, sampling, caching."""

import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.support.commands import command, read_final, sample_set, train_command
from tests.support.configs import write_config
from tests.support.damage import flip_byte
from tests.support.jobs import PATIENCE, Job, finish, pictures
from tests.support.latents import photo_config, save_tiny_weights
from tests.support.photos import CLASSES, encoded, photographs
from transdiff_jax.checkpoints.weights import latest_record, load_weights
from transdiff_jax.config import MeshConfig, make_config
from transdiff_jax.data.latents.encode import SHARD_RECORDS
from transdiff_jax.data.latents.format import check_all
from transdiff_jax.generation.generate import generate_samples
from transdiff_jax.generation.request import SampleRequest, balanced_labels
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.training.loop import train
from transdiff_jax.training.metric_writers import read_metrics

STEPS, HALF = 20, 12
# Frequent saves, so that a kill loses few steps. A schedule that does not depend on the last step. The processes split
# the weights, so that each writes its part.
SETTINGS = {
    **{"train__steps": STEPS, "train__checkpoint_every": 4, "train__keep_last": 99, "mesh__fsdp": 2},
    "optimizer__schedule": "constant",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def straight(tmp_path_factory, data):
    """An undisturbed run of two processes, which start by preparing the dataset at the same time."""
    folder = tmp_path_factory.mktemp("straight")
    text = finish(folder, 2, train_command(folder / "run", data, **SETTINGS))
    assert f"[0] {text.split('[0] ')[-1]}".count(f"trained to step {STEPS}") == 1
    assert "[1] " not in re.sub(r"\[1\] (?!\d\d:\d\d:\d\d).*", "", text), "only the first process logs"
    return folder / "run"


def assert_equal_runs(ours, theirs):
    ours, theirs = read_final(ours), read_final(theirs)
    assert (ours[0], ours[2]) == (theirs[0], theirs[2])
    jax.tree.map(np.testing.assert_array_equal, ours[1], theirs[1])


def copy_until(run, target, step):
    """A new run with the checkpoints of another run up to a step."""
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
        assert any(f"/ocdbt.process_{process}/d/" in name for name in manifest)
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


def kill_one(job, draw, name="KILL"):
    subprocess.run(["kill", f"-{name}", str(draw.choice(job.processes()))])


@pytest.mark.slow
def test_four_processes_that_share_rows_killed_and_preempted_have_the_same_losses(straight, data, tmp_path):
    run, draw = copy_until(straight, tmp_path / "run", HALF), random.Random(0)
    settings = SETTINGS | {"train__steps": HALF + 8, "mesh__fsdp": 2, "mesh__tensor": 2, "mesh__data": 1}
    arguments = train_command(run, data, **settings)
    again = HALF + 5  # the first step after a checkpoint: it is made twice

    def losses_of_again():
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return [line["loss"] for line in lines if line["step"] == again and "loss" in line]

    job = Job(tmp_path, 4, arguments)
    job.wait_for(rf"step {again}:")
    job.wait_until(losses_of_again)  # written lines survive the kill
    kill_one(job, draw)
    assert job.end() == 128 + signal.SIGKILL, job.text()

    job = Job(tmp_path, 4, arguments)
    job.wait_for(rf"step {again}:")
    kill_one(job, draw, "TERM")
    assert job.end() == 0, job.text()
    assert f"resuming from the checkpoint of step {HALF + 4}" in job.text()
    assert re.search(rf"stopped by a signal to one of the processes|trained to step {HALF + 8}", job.text())

    finish(tmp_path, 4, arguments)
    twice = losses_of_again()
    assert len(twice) > 1 and len(set(twice)) == 1, "a restart continues exactly"
    ours, theirs = losses(run, HALF), losses(straight, HALF)
    assert list(ours) == list(range(HALF + 1, HALF + 9))
    np.testing.assert_allclose(list(ours.values()), list(theirs.values())[:8], atol=1e-5)


def test_preempted_killed_and_damaged_it_ends_like_the_undisturbed_run(straight, data, tmp_path):
    run, draw = tmp_path / "run", random.Random(0)
    arguments = train_command(run, data, **SETTINGS)

    # SIGTERM to one process: all save the same step.
    job = Job(tmp_path, 2, arguments)
    job.wait_for(r"step 3:")
    kill_one(job, draw, "TERM")
    assert job.end() == 0, job.text()
    (stopped,) = re.findall(r"stopped by a signal to one of the processes: saved step (\d+)", job.text())
    assert read_final(run)[0] == int(stopped) < STEPS

    # kill -9 of one process: the others end in one line, before they count it as silent.
    job = Job(tmp_path, 2, arguments, TRANSDIFF_HEARTBEAT_TIMEOUT=str(PATIENCE))
    job.wait_until(lambda: newest(run) > int(stopped))
    kill_one(job, draw)
    assert job.end() == 128 + signal.SIGKILL
    assert re.search(r"\[cluster\] process \d ended with exit code 137: stopping the others", job.text())

    # A flipped bit in the newest checkpoint.
    damaged = newest(run)
    flip_byte(run / "checkpoints" / str(damaged))
    text = finish(tmp_path, 2, arguments)
    assert f"checkpoint of step {damaged} in" in text
    assert re.search(r"resuming from the checkpoint of step \d+", text)
    assert_equal_runs(run, straight)


def newest(run):
    return max(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())


@pytest.mark.slow
def test_a_signal_to_all_processes_saves(straight, data, tmp_path):
    run = copy_until(straight, tmp_path / "run", HALF)
    job = Job(tmp_path, 2, train_command(run, data, **SETTINGS))
    job.wait_for(r"step \d+: loss")  # so that there is something new to save
    job.launcher.send_signal(signal.SIGTERM)  # as schedulers send it
    assert job.end() == 0, job.text()
    # All may agree on the last step if few are left.
    assert re.search(rf"the same command resumes|trained to step {STEPS}", job.text())


@pytest.mark.slow
def test_a_storm_of_kills_ends_like_the_undisturbed_run(straight, data, tmp_path):
    """Thirty kills of one of two processes, in turns in the job's first seconds and after some steps."""
    run, draw, codes = tmp_path / "run", random.Random(1), []
    arguments = train_command(run, data, **SETTINGS)
    for kill in range(30):
        job = Job(tmp_path, 2, arguments)
        if kill % 2:
            job.wait_for("training from step|nothing to do")
        else:
            job.wait_until(lambda job=job: len(job.processes()) == 2)
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.launcher.wait(draw.uniform(0, 1 if kill % 2 else 12))
        for process in job.processes()[draw.randrange(2) :][:1]:
            subprocess.run(["kill", "-KILL", str(process)])
        codes.append(job.end())
    assert codes.count(128 + signal.SIGKILL) > 10, codes
    finish(tmp_path, 2, arguments)
    assert_equal_runs(run, straight)


def test_an_error_in_one_process_ends_all_with_its_line(data, tmp_path):
    # As on a host with another configuration file.
    differing = '[[ $TRANSDIFF_PROCESS == 0 ]] || set -- "$@" --config.data.split=other; exec "$@"'
    job = Job(tmp_path, 2, ["bash", "-c", differing, "differing", *train_command(tmp_path / "run", data, **SETTINGS)])
    assert job.end() == 2, job.text()
    assert re.search(r"^\[1\] error: config.data.split='other' is not a split of digits", job.text(), re.MULTILINE)
    assert "Traceback" not in job.text()


def test_an_error_of_the_first_process_ends_all_with_its_line(straight, data, tmp_path):
    run = copy_until(straight, tmp_path / "run", 4)
    flip_byte(run / "checkpoints" / "4")
    job = Job(tmp_path, 2, train_command(run, data, **SETTINGS))
    assert job.end() == 2, job.text()
    assert re.search(r"^\[0\] error: .* holds no intact checkpoint", job.text(), re.MULTILINE)
    assert "[1] error: the job was stopped by its first process" in job.text()


@pytest.mark.parametrize(
    "processes", [pytest.param("01", marks=pytest.mark.slow), pytest.param("0", marks=pytest.mark.slow), "1"]
)
def test_a_full_disk_ends_all_in_one_line_and_keeps_what_is_saved(straight, data, tmp_path, processes):
    run = copy_until(straight, tmp_path / "run", 4)
    # Mounting a full disk needs rights, so writes beyond 16 KiB fail instead.
    full = f'[[ {processes} != *$TRANSDIFF_PROCESS* ]] || ulimit -f 16; exec "$@"'
    limited = ["bash", "-c", full, "limited"]
    job = Job(tmp_path, 2, [*limited, *train_command(run, data, **SETTINGS | {"train__steps": 6})])
    assert job.end() == 2, job.text()
    assert "Traceback" not in job.text()
    # A late process may be stopped before it prints its own error.
    lines = re.findall(r"^\[(\d)\] error: (.*)$", job.text(), re.MULTILINE)
    assert len(lines) == len(dict(lines)), "at most one per process"
    assert any(
        re.search(r"checkpoint of step 6 could not be written to .*: steps \[4\] are kept", line) for _, line in lines
    ), job.text()
    assert read_final(run)[0] == 4


@pytest.fixture(scope="module")
def damaged_digits(tmp_path_factory):
    """Twelve files of each class, one of them cut short."""
    folder, digits = tmp_path_factory.mktemp("damaged"), load_digits()
    for label in range(10):
        (folder / str(label)).mkdir()
        for number, image in enumerate(digits.images[digits.target == label][:12]):
            file = encoded((image * 15).astype(np.uint8))
            (folder / str(label) / f"{number:02d}.png").write_bytes(file[: len(file) // 2] if number == label else file)
    return folder


def unreadable(workdir):
    """The names of the records in each report of a run."""
    reports = [json.loads(path.read_text())["unreadable"] for path in sorted(workdir.glob("unreadable_records*.json"))]
    return [{entry["id"] for entry in entries} for entries in reports]


@pytest.mark.slow
def test_fine_tuned_to_mrar_on_damaged_images_it_is_what_one_process_makes(straight, damaged_digits, tmp_path):
    groups = {"model.num_images": 4, "model.tokens_per_image": 4, "model.mask_tokens": 4, "model.reference_patch": 2}
    data = {"data.source": f"folder:{damaged_digits}", "data.max_unreadable": 0.1}
    steps = {"train.steps": 2, "train.sample_every": 2, "optimizer.warmup_steps": 0}
    settings = {"train.init_from": straight, **steps, **groups, **data}
    finish(tmp_path, 2, train_command(tmp_path / "two", tmp_path, **settings))
    values = latest_record(tmp_path / "two").config.to_dict()
    values["mesh"] = {"data": 2, "fsdp": 2, "tensor": 2}
    train(make_config(values), tmp_path / "one")

    ours, theirs = losses(tmp_path / "two", 0), losses(tmp_path / "one", 0)
    assert list(ours) == [1, 2]
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), atol=1e-5)
    assert len(pictures(tmp_path / "two")) == 1
    assert pictures(tmp_path / "two") == pictures(tmp_path / "one")
    first, second = unreadable(tmp_path / "two")
    assert first and second
    assert unreadable(tmp_path / "one") == [first | second]


@pytest.mark.slow
def test_two_processes_that_share_the_weights_sample_the_same_bytes_as_one(straight, tmp_path):
    settings = ["--num_samples=20", "--batch_size=8", "--npz", "--mesh=1,-1,1"]
    finish(tmp_path, 2, command("sample", f"--workdir={straight}", f"--out={tmp_path / 'two'}", *settings))
    assert json.loads((tmp_path / "two" / "samples.json").read_text())["runs"][0]["processes"] == 2

    mesh = make_mesh(MeshConfig(1, 2, 1), jax.devices()[:2])
    weights = load_weights(straight, mesh)
    values = weights.config.to_dict()
    values["sampling"]["batch_size"] = 8
    weights = dataclasses.replace(weights, config=make_config(values))
    request = SampleRequest(tuple(balanced_labels(20, weights.config.model.num_classes)), seed=0, npz=True)
    generate_samples(weights, request, tmp_path / "one", mesh)
    assert sample_set(tmp_path / "two") == sample_set(tmp_path / "one")


@pytest.mark.slow
def test_two_processes_that_are_killed_cache_the_same_bytes_as_one(tmp_path):
    weights = save_tiny_weights(tmp_path / "kl16")
    # Enough images that each process makes a file of records. They are links to eight files.
    for name in CLASSES:
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(SHARD_RECORDS // 2 + 2):
            path = tmp_path / "images" / name / f"{number:04d}.png"
            if number < 4:
                path.write_bytes(encoded(photographs()[name][16 * number :][:16, :16]))
            else:
                os.link(path.with_name(f"{number % 4:04d}.png"), path)
    config = photo_config(
        weights,
        data={"image_size": 16, "source": f"folder:{tmp_path / 'images'}"},
        model={"latent_size": 1, "tokens_per_image": 1},
        tokenizer={"slice_size": 64},
    )
    file = write_config(config, tmp_path)
    one, two = (command("cache_latents", f"--config={file}", f"--out={tmp_path / name}") for name in ("one", "two"))
    finish(tmp_path, 1, one)
    job = Job(tmp_path, 2, two)
    job.wait_until(lambda: list((tmp_path / "two").glob("latents-*")))
    for process in job.processes():
        subprocess.run(["kill", "-KILL", str(process)])
    job.end()
    finish(tmp_path, 2, two)
    assert check_all(tmp_path / "two").records == SHARD_RECORDS + 4
    ours, theirs = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.is_file()}
        for name in ("two", "one")
    )
    assert len([name for name in theirs if name.startswith("latents-")]) == 2
    assert ours == theirs
