"""Caching jobs that are killed, and caching jobs of two processes, as on two hosts that share a folder."""

import json
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.multiprocess.caching_worker import SHARD
from tests.support.commands import ROOT, environment
from tests.support.latents import save_tiny_weights
from transdiff_jax.data.latents.format import check_all

COUNT = 400
SHARDS = COUNT // SHARD


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_tiny_weights(tmp_path_factory.mktemp("kl16") / "weights")


def start(out, weights, processes):
    """Starts the processes of a job. Their output goes to files beside `out`."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    jobs = []
    for process in range(processes):
        arguments = map(str, (out, weights, process, processes, port, COUNT))
        with out.with_name(f"{out.name}-{process}.log").open("w") as log:
            command = [sys.executable, "-m", "tests.multiprocess.caching_worker", *arguments]
            jobs.append(subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=log, stderr=subprocess.STDOUT))
    return jobs


def logs(out):
    return "\n".join(path.read_text() for path in sorted(out.parent.glob(f"{out.name}-*.log")))


def kill(jobs):
    for job in jobs:
        job.send_signal(signal.SIGKILL)
        job.wait()


def finish(out, weights, processes):
    jobs = start(out, weights, processes)
    try:
        assert [job.wait(timeout=240) for job in jobs] == [0] * processes, logs(out)
    finally:
        kill(jobs)


def shards(out):
    return len(list(out.glob("latents-*.array_record")))


def contents(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, weights):
    """The folder that one undisturbed process makes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    finish(out, weights, 1)
    assert check_all(out).records == COUNT - 1
    assert shards(out) == SHARDS
    return out


def test_a_killed_job_of_any_number_of_processes_ends_with_the_same_bytes(whole, weights, tmp_path):
    out, before = tmp_path / "out", 0
    for processes in (1, 2):
        jobs = start(out, weights, processes)
        try:
            deadline = time.monotonic() + 120
            while shards(out) < before + SHARDS // 4:
                assert all(job.poll() is None for job in jobs), logs(out)
                assert time.monotonic() < deadline, logs(out)
                time.sleep(0.001)
        finally:
            kill(jobs)
        before = shards(out)
        assert before < SHARDS
        assert not (out / "manifest.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("latents-*") if noted(out, path)}
    assert len(kept) >= before - 2  # a file is made again if it has its name but is not noted yet
    finish(out, weights, 2)
    assert contents(out) == contents(whole)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert "records 399" in logs(out)
    first, second = (json.loads(part) for part in re.findall(r"^verifies (.*)$", logs(out), re.MULTILINE))
    assert sorted(first + second) == sorted(int(path.name[8:13]) for path in kept)
    assert abs(len(first) - len(second)) <= 1


def noted(out, path):
    return (out / "progress" / f"{path.name[8:13]}.json").exists()


def test_an_error_of_the_first_process_ends_all(weights, tmp_path):
    out = tmp_path / "out"
    out.write_text("")
    jobs = start(out, weights, 2)
    try:
        assert [job.wait(timeout=120) for job in jobs] == [2, 2], logs(out)
    finally:
        kill(jobs)
    assert f"out={out} cannot be used" in (tmp_path / "out-0.log").read_text()
    assert "stopped by its first process" in (tmp_path / "out-1.log").read_text()
