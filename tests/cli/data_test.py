"""Training on folders and TFDS datasets as a user runs it. No worker process may be left behind."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.support.commands import ROOT, environment, error_line, read_final, run, train_command, wait_for
from tests.support.photos import write_folder, write_tfds

PHOTOS = {
    **{"data.image_channels": 3, "data.image_size": 16, "data.crop": "random", "data.flip": True},
    **{"tokenizer.patch": 4, "model.latent_channels": 48, "model.num_classes": 2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("folder"), count=12)


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    return write_tfds(folder, tmp_path_factory.mktemp("tfds"))


def command(workdir, source, directory="unused", **overrides):
    return train_command(workdir, directory, **PHOTOS, **{"data.source": source}, **overrides)


def start_group(arguments, log):
    """A command at the head of a process group, like a job of a shell."""
    out = log.open("w")
    return subprocess.Popen(
        arguments, cwd=ROOT, env=environment(), stdout=out, stderr=subprocess.STDOUT, start_new_session=True
    )


def workers_of(process):
    """Ids of the worker processes (and of Python's resource tracker)."""
    found = []
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that ended after it was listed
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def wait_for_end(processes):
    deadline = time.monotonic() + 60
    while alive := [number for number in processes if Path(f"/proc/{number}").exists()]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def test_a_killed_run_leaves_no_worker_behind(tmp_path, folder):
    log = tmp_path / "log"
    process = start_group(command(tmp_path / "run", f"folder:{folder}", data__workers=2), log)
    wait_for((tmp_path / "run" / "checkpoints" / "20").exists, process, log)
    workers = workers_of(process)
    assert len(workers) >= 2
    process.kill()
    process.wait()
    wait_for_end(workers)


@pytest.mark.slow
def test_killed_and_terminated_runs_with_workers_end_like_one_without(tmp_path, folder):
    straight, disturbed, log = tmp_path / "straight", tmp_path / "disturbed", tmp_path / "log"
    source = f"folder:{folder}"
    assert run(command(straight, source, train__steps=200)).returncode == 0

    process = start_group(command(disturbed, source, train__steps=200, data__workers=2), log)
    wait_for((disturbed / "checkpoints" / "20").exists, process, log)
    workers = workers_of(process)
    assert len(workers) >= 2
    process.kill()
    process.wait()
    wait_for_end(workers)

    process = start_group(command(disturbed, source, train__steps=200, data__workers=1), log)
    wait_for((disturbed / "checkpoints" / "80").exists, process, log)
    workers = workers_of(process)
    os.killpg(process.pid, signal.SIGTERM)  # schedulers send it to the whole group
    assert process.wait(timeout=120) == 0, log.read_text()
    assert "stopped by SIGTERM: saved step" in log.read_text()
    assert "leaked" not in log.read_text()
    wait_for_end(workers)
    assert read_final(disturbed)[0] < 200

    assert run(command(disturbed, source, train__steps=200)).returncode == 0
    ours, theirs = read_final(disturbed), read_final(straight)
    assert (ours[0], ours[2]) == (theirs[0], theirs[2])
    jax.tree.map(np.testing.assert_array_equal, ours[1], theirs[1])


@pytest.mark.slow  # cached_training_test.py reads such a dataset in the quick set
def test_a_tfds_dataset_trains_by_name_and_its_damage_ends_in_one_line(tmp_path, prepared):
    arguments = command(tmp_path / "run", "tfds:photos", prepared, train__steps=5, data__workers=1)
    result = run(arguments)
    assert result.returncode == 0, result.stderr
    assert read_final(tmp_path / "run")[0] == 5

    # Training checks the first record at the start; only the worker reads the last ones.
    (file,) = prepared.rglob("*.array_record*")
    data = bytearray(file.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    file.write_bytes(data)
    line = error_line(run(command(tmp_path / "other", "tfds:photos", prepared, train__steps=50, data__workers=1)))
    assert f"the dataset in {prepared}" in line
    assert "is damaged" in line


@pytest.mark.slow  # unreadable_test.py refuses such folders in the quick set
def test_too_many_unreadable_files_end_in_one_line(tmp_path):
    folder = write_folder(tmp_path / "photos")
    (folder / "china" / "002.JPEG").write_bytes(b"")
    line = error_line(run(command(tmp_path / "run", f"folder:{folder}", train__steps=5)))
    assert "1 of 16 records (6.25%)" in line
    assert "china/002.JPEG" in line
    assert (tmp_path / "run" / "unreadable_records.json").exists()
    allowed = command(tmp_path / "run", f"folder:{folder}", train__steps=5, data__max_unreadable=0.1)
    assert run(allowed).returncode == 0
