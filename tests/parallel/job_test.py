"""Whether a process belongs to a job: requested, detected, or alone."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

import jax
import pytest

from transdiff_jax.errors import UserError
from transdiff_jax.parallel import job
from transdiff_jax.parallel.job import Job, find_job

SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_LOCALID": "0", "SLURM_PROCID": "1"}
ASKED = {"TRANSDIFF_COORDINATOR": "host:1234", "TRANSDIFF_PROCESSES": "3", "TRANSDIFF_PROCESS": "2"}


@pytest.fixture
def tpu(monkeypatch):
    """A machine with TPU chips, whose metadata name the given workers and slices."""

    def make(*workers, slices=""):
        metadata = {"worker-network-endpoints": ",".join(workers), "tpu-env": f"ZONE: 'a'\n{slices}\nNAME: 'b:c'\n"}
        monkeypatch.setattr(job, "_has_tpu", lambda: True)
        monkeypatch.setattr(job, "_metadata", metadata.get)

    return make


def test_a_job_that_is_asked_for():
    assert find_job(ASKED) == Job("deactivate", "host:1234", 3, 2)
    assert find_job(SLURM | {"SLURM_STEP_NUM_TASKS": "2"} | ASKED) == find_job(ASKED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"TRANSDIFF_PROCESS": ""}, "TRANSDIFF_COORDINATOR, TRANSDIFF_PROCESSES without TRANSDIFF_PROCESS: set all"),
        ({"TRANSDIFF_COORDINATOR": "host"}, "TRANSDIFF_COORDINATOR=host must be host:port"),
        ({"TRANSDIFF_PROCESSES": "two"}, "TRANSDIFF_PROCESSES=two must be a whole number, at least 1"),
        ({"TRANSDIFF_PROCESS": "3"}, "TRANSDIFF_PROCESS=3 must be less than TRANSDIFF_PROCESSES=3"),
    ],
)
def test_settings_that_make_no_sense(changes, message):
    with pytest.raises(UserError, match=message):
        find_job(ASKED | changes)


def test_a_slurm_step_of_several_tasks():
    assert find_job(SLURM | {"SLURM_STEP_NUM_TASKS": "2"}) == Job("slurm", None, 2, 1)
    # A step of one task (a notebook), and the batch script of a job of several tasks.
    assert find_job(SLURM | {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"}) is None
    assert find_job(SLURM | {"SLURM_NTASKS": "4"}) is None


def test_tpu_slices(tpu):
    hosts = {"TPU_WORKER_HOSTNAMES": "a,b"}
    assert find_job(hosts) is None, "libtpu alone, for ahead-of-time compiling, is not a TPU"
    tpu("a")
    assert find_job({}) is None
    assert find_job(hosts) == Job("gketpu")
    assert find_job({"TPU_WORKER_HOSTNAMES": "localhost"}) is None
    assert find_job({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}) == Job("gketpu")
    tpu("a", "b")
    assert find_job({}) == Job("gcetpu")
    assert find_job({"JAX_PLATFORMS": "cpu"}) is None
    tpu("a", slices="MEGASCALE_NUM_SLICES: '2'")
    assert find_job({}) == Job("gcetpu")
    assert find_job({"MEGASCALE_NUM_SLICES": "1"}) is None
    tpu("a", slices="MEGASCALE_NUM_SLICES: '1'")
    assert find_job({}) is None


@pytest.mark.parametrize("error", [urllib.error.URLError("no such host"), TimeoutError()])
def test_a_tpu_without_a_metadata_server_is_on_its_own(monkeypatch, error):
    def refuse(request, timeout):
        raise error

    monkeypatch.setattr(job, "_has_tpu", lambda: True)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert find_job({}) is None


def test_a_process_on_its_own_joins_nothing(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **kwargs: pytest.fail("it waited for others"))
    for environment in ({}, ASKED | {"TRANSDIFF_PROCESSES": "1", "TRANSDIFF_PROCESS": "0"}):
        assert not job.join(environment)


@pytest.mark.parametrize("process", [0, 1])
def test_a_job_whose_processes_do_not_come_is_given_up_in_one_line(process):
    asked = {"TRANSDIFF_COORDINATOR": "localhost:1", "TRANSDIFF_PROCESSES": "2", "TRANSDIFF_START_TIMEOUT": "1"}
    if process == 0:
        asked["TRANSDIFF_COORDINATOR"] = f"localhost:{20000 + os.getpid() % 10000}"
    code = "import os; from transdiff_jax.parallel import job; job.join(os.environ)"
    began = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **asked, "TRANSDIFF_PROCESS": str(process), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert time.monotonic() - began < 60
    assert result.returncode == 2
    assert "did not find each other within 1 s" in result.stderr
    assert f"(process {process} of 2, coordinator localhost:" in result.stderr
