"""The launchers: shells and Kubernetes can read them, and they only launch."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

LAUNCH = Path(__file__).parents[1] / "launch"
SHELL = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
TRAINERS = [LAUNCH / name for name in ("gpu_node.sh", "slurm.sbatch", "tpu_pod.sh", "gke.yaml")]


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_the_shell_reads_it(path):
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path):
    subprocess.run([Path(sys.executable).with_name("shellcheck"), "--external-sources", path], check=True)


@pytest.mark.parametrize("path", [*TRAINERS, LAUNCH / "local_cluster.sh"], ids=lambda path: path.name)
def test_the_header_says_what_to_fill_in(path):
    header = re.match(r"(#.*\n)+", path.read_text())[0]
    assert "# Fill in: " in header
    assert "resume" in header or "resume" in path.read_text().split("set -")[0]


@pytest.mark.parametrize("path", TRAINERS, ids=lambda path: path.name)
def test_it_trains_and_decides_nothing_that_a_configuration_does(path):
    text = path.read_text()
    assert re.search(r"\.venv/bin/python -m transdiff_jax\.cli\.train", text)
    importlib.import_module("transdiff_jax.cli.train")
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert "--config.train" not in code
    assert "XLA_FLAGS" not in code


@pytest.mark.parametrize("name", ["gpu_node.sh", "tpu_pod.sh"])
def test_without_flags_it_says_how_to_use_it(name):
    result = subprocess.run([LAUNCH / name], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("error: usage: ")


@pytest.fixture(scope="module")
def job_set():
    (document,) = yaml.safe_load_all((LAUNCH / "gke.yaml").read_text())
    return document


def test_kubernetes_starts_all_pods_anew_when_one_fails(job_set):
    assert job_set["kind"] == "JobSet"
    assert job_set["spec"]["failurePolicy"]["maxRestarts"] > 0
    (workers,) = job_set["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    assert job["completions"] == job["parallelism"] > 1
    assert job["completionMode"] == "Indexed"
    assert job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"


def test_the_pods_run_folder_is_on_the_shared_claim(job_set):
    pod = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in container["args"])
    assert (LAUNCH.parent / flags["config"]).exists()
    (mount,) = container["volumeMounts"]
    assert flags["workdir"].startswith(mount["mountPath"] + "/")
    claims = {volume["name"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume}
    assert mount["name"] in claims


@pytest.mark.parametrize(("ends_by", "code"), [("itself", 0), ("error", 2), ("SIGTERM", 75)])
def test_the_pods_exit_code_tells_a_finished_run_from_a_stopped_one(job_set, tmp_path, ends_by, code):
    """Its shell command, with a training that ends by itself, by an error, or well after SIGTERM."""
    command = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]["command"]
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    endings = {"itself": "exit 0", "error": "exit 2", "SIGTERM": "while :; do sleep 0.05; done"}
    python.write_text(f'#!/bin/bash\ntrap "sleep 0.2; exit 0" TERM\necho "$@"\n{endings[ends_by]}\n')
    python.chmod(0o755)
    process = subprocess.Popen([*command, "--workdir=X"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "-m transdiff_jax.cli.train --workdir=X\n"
    if ends_by == "SIGTERM":
        process.terminate()
    assert process.wait(timeout=20) == code
