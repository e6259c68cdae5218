"""Sampling jobs of several processes, as on several hosts that share a folder."""

import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.support.commands import ROOT, environment
from transdiff_jax.generation.sample_files import RECORD, image_path
from transdiff_jax.images.png import load_png

COUNT = 50


def start(out, processes, devices, batch_size=8, folders=None):
    """Starts the processes of a job with some devices each. Their output goes to files beside `out`.

    With `folders`, each process sees another folder in place of `out`.
    """
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    jobs = []
    for process in range(processes):
        arguments = [folders[process] if folders else out, process, processes, devices, port, batch_size]
        with out.with_name(f"{out.name}-{process}.log").open("w") as log:
            command = [sys.executable, "-m", "tests.multiprocess.generation_worker", *map(str, arguments)]
            jobs.append(subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=log, stderr=subprocess.STDOUT))
    return jobs


def logs(out):
    return "\n".join(path.read_text() for path in sorted(out.parent.glob(f"{out.name}-*.log")))


def finish(out, *arguments, **options):
    jobs = start(out, *arguments, **options)
    try:
        assert [job.wait(timeout=240) for job in jobs] == [0] * len(jobs), logs(out)
    finally:
        kill(jobs)


def kill(jobs):
    for job in jobs:
        job.send_signal(signal.SIGKILL)
        job.wait()


def images_in(out):
    return len(list(out.glob("images/*.png")))


def contents(out):
    files = [path for path in out.rglob("*") if path.is_file() and path.name != RECORD]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def pixels(out):
    assert {path.name for path in (out / "images").iterdir()} == {f"{index:06d}.png" for index in range(COUNT)}
    return np.stack([load_png(image_path(out, index), 1) for index in range(COUNT)]).astype(int)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The sample set that one process with four devices makes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    finish(out, 1, 4)
    return out


def test_two_processes_make_the_same_bytes(whole, tmp_path):
    out = tmp_path / "out"
    finish(out, 2, 2)
    assert "made 50" in (tmp_path / "out-0.log").read_text()
    assert contents(out) == contents(whole)


def test_a_killed_job_goes_on_with_another_number_of_processes(whole, tmp_path):
    out = tmp_path / "out"
    for processes, devices, until in ((2, 2, 5), (1, 2, 20)):
        jobs = start(out, processes, devices)
        try:
            deadline = time.monotonic() + 120
            while images_in(out) < until:
                assert all(job.poll() is None for job in jobs), logs(out)
                assert time.monotonic() < deadline, logs(out)
                time.sleep(0.002)
        finally:
            kill(jobs)
        assert not (out / "samples.npz").exists()
    finish(out, 2, 1)
    assert np.abs(pixels(out) - pixels(whole)).max() <= 1
    assert set(contents(out)) == set(contents(whole))


def test_an_error_of_the_first_process_ends_all(whole, tmp_path):
    out = tmp_path / "out"
    out.write_text("")
    jobs = start(out, 2, 1)
    try:
        assert [job.wait(timeout=120) for job in jobs] == [2, 2], logs(out)
    finally:
        kill(jobs)
    assert f"out={out} cannot be used" in (tmp_path / "out-0.log").read_text()
    assert "stopped by its first process" in (tmp_path / "out-1.log").read_text()


@pytest.mark.slow
def test_processes_that_see_other_folders_end_in_one_line_each(tmp_path):
    jobs = start(tmp_path / "out", 2, 1, folders=[tmp_path / "here", tmp_path / "there"])
    try:
        assert [job.wait(timeout=120) for job in jobs] == [2, 2], logs(tmp_path / "out")
    finally:
        kill(jobs)
    for process, folder in enumerate(("here", "there")):
        line = f"user error: out={tmp_path / folder} is not one folder for all processes of the job: 1 of 2 do not see"
        assert line in (tmp_path / f"out-{process}.log").read_text()
