"""The launchers: shells and Kubernetes can read them, and they only launch."""

import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.support.paths import LAUNCH, ROOT
from transdiff_jax.cli import app, train

SHELL = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
TRAINERS = [LAUNCH / name for name in ("gpu_node.sh", "slurm.sbatch", "tpu_pod.sh", "gke.yaml")]
FILLED_IN = [*TRAINERS, LAUNCH / "local_cluster.sh", LAUNCH / "Dockerfile"]


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_the_shell_reads_it(path):
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path):
    subprocess.run([Path(sys.executable).with_name("shellcheck"), "--external-sources", path], check=True)


@pytest.mark.parametrize("path", FILLED_IN, ids=lambda path: path.name)
def test_the_header_says_what_to_fill_in(path):
    header = re.match(r"(#.*\n)+", path.read_text())[0]
    assert "# Fill in: " in header
    assert "resume" in header or "resume" in path.read_text().split("set -")[0]


@pytest.mark.parametrize("path", TRAINERS, ids=lambda path: path.name)
def test_it_trains_and_decides_nothing_that_a_configuration_does(path):
    text = path.read_text()
    assert re.search(r"\.venv/bin/python -m transdiff_jax\.cli\.train", text)
    text = text.partition("args:\n")[0]  # in the manifest, the arguments are the user's
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert not re.search(r"--config\.(?!section)", code)
    assert "XLA_FLAGS" not in code


@pytest.mark.parametrize("name", ["gpu_node.sh", "tpu_pod.sh"])
def test_without_flags_it_says_how_to_use_it(name):
    result = subprocess.run([LAUNCH / name], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("error: usage: ")


def test_a_tpu_slice_keeps_compiled_programs_in_the_workdir(tmp_path):
    (tmp_path / "gcloud").write_text('#!/bin/bash\nprintf "%s\\n" "${@: -1}"\n')
    (tmp_path / "gcloud").chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NAME": "my-tpu"}
    flags = ["--config=a b", "--workdir=/runs/x", "--compile_cache=/mine"]
    result = subprocess.run([LAUNCH / "tpu_pod.sh", *flags], env=variables, capture_output=True, text=True, check=True)
    given = " --compile_cache=/runs/x/compile_cache --config=a\\ b --workdir=/runs/x --compile_cache=/mine\n"
    assert result.stdout.endswith("cli.train" + given)
    flags = ["--config=c", "--workdir=gs://bucket/x"]
    result = subprocess.run([LAUNCH / "tpu_pod.sh", *flags], env=variables, capture_output=True, text=True, check=True)
    assert result.stdout.endswith("cli.train --config=c --workdir=gs://bucket/x\n")


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


def test_the_pods_arguments_fit_the_bucket_and_the_slice(job_set, monkeypatch):
    pod = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in container["args"])
    assert (LAUNCH.parent / flags["config"]).exists()
    assert flags["workdir"].startswith("gs://BUCKET/")
    assert "volumes" not in pod and "volumeMounts" not in container, "nothing has to be mounted"
    monkeypatch.chdir(LAUNCH.parent)
    monkeypatch.setattr(sys, "argv", ["cli.train", *container["args"]])
    train.FLAGS(sys.argv)
    config = app.read_config(train.CONFIG)
    assert config.data.source.startswith("latents:gs://BUCKET/")
    assert config.tokenizer.weights.startswith("gs://BUCKET/")
    chips = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["parallelism"]
    chips *= container["resources"]["limits"]["google.com/tpu"]
    assert config.mesh.fsdp == chips
    assert config.train.batch_size % (config.train.accumulation * chips) == 0


def test_hadolint_finds_nothing():
    subprocess.run([Path(sys.executable).with_name("hadolint"), LAUNCH / "Dockerfile"], check=True)


def test_the_image_holds_what_the_launchers_run():
    lines = (LAUNCH / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert {"transdiff_jax", "configs", "pyproject.toml"} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (extras,) = re.findall(r"\.\[([^]]+)\]", "\n".join(lines))
    assert {"cuda", "tpu", "gcs"} <= project["project"]["optional-dependencies"].keys()
    assert set(extras.split(",")) - {"$DEVICE"} <= project["project"]["optional-dependencies"].keys()
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"]["file"] == ["requirements.txt"]


@pytest.mark.parametrize(("ends_by", "code"), [("itself", 0), ("error", 2), ("SIGTERM", 75)])
def test_the_pods_exit_code_tells_a_finished_run_from_a_stopped_one(job_set, tmp_path, ends_by, code):
    """Runs its shell command with a training that ends by itself, by an error, or well after SIGTERM."""
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


# SLURM's commands, as they act on the processes of the one task and of the batch shell, whose ids are in files.
FAKE_SLURM = {
    "srun": 'while [[ $1 == --* ]]; do shift; done\nset -m\n"$@" & echo $! > task\nwait $!\n'
    "code=$?\nwhile kill -0 $! 2>/dev/null; do wait $!; code=$?; done\nexit $code",
    "scancel": 'echo "scancel $*" >> calls\n[[ $1 == --batch ]] && kill -TERM $(< shell) || kill -TERM -- -$(< task)',
    "scontrol": 'echo "scontrol $*" >> calls',
}


def end_of(process, signalled, log):
    """Sends SIGTERM to the shell or to the task once training has begun, if asked, and waits for the process."""
    deadline = time.monotonic() + 20
    while "cli.train" not in log.read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    if signalled == "shell":
        process.terminate()
    if signalled == "task":
        subprocess.run(["kill", "-TERM", "--", f"-{(log.parent / 'task').read_text().strip()}"], check=True)
    return process.wait(timeout=20)


@pytest.mark.parametrize(
    ("ending", "signalled", "code", "requeued"),
    [
        ("exit 0", None, 0, False),
        ("exit 2", None, 2, False),
        ("while :; do sleep 0.05; done", "shell", 0, True),  # the time limit
        ("while :; do sleep 0.05; done", "task", 0, True),  # preemption
        ('trap "exit 143" TERM; while :; do sleep 0.05; done', "shell", 143, True),  # before the first step
    ],
)
def test_a_slurm_job_that_is_stopped_queues_itself_again(tmp_path, ending, signalled, code, requeued):
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    commands = FAKE_SLURM | {str(python): f'trap "sleep 0.2; exit 0" TERM\necho "$@"\n{ending}'}
    for name, body in commands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    log = tmp_path / "log"
    script = f"echo $$ > shell; exec bash {LAUNCH / 'slurm.sbatch'} --workdir=X"
    with log.open("w") as output:
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
        process = subprocess.Popen(["bash", "-c", script], cwd=tmp_path, env=environment, stdout=output)
    assert end_of(process, signalled, log) == code
    assert log.read_text() == "-m transdiff_jax.cli.train --compile_cache=X/compile_cache --workdir=X\n"
    calls = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
    assert ("scontrol requeue 7" in calls) == requeued
    assert calls.count("scancel --signal=TERM 7.0") == requeued
