"""Jobs of two processes that ask for a model of the hub, on hosts that share their folders or share nothing."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from tests.support import runs
from tests.support.commands import ROOT, environment
from tests.support.hub_server import served
from transdiff_jax.checkpoints.weights import latest_record
from transdiff_jax.config import MeshConfig
from transdiff_jax.hub.publishing import push
from transdiff_jax.parallel.mesh import make_mesh

pytest.importorskip("huggingface_hub")
REPO = "me/digits"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    workdir = tmp_path / "run"
    runs.save_steps(workdir, runs.make_state(make_mesh(MeshConfig(), jax.devices()[:1])), [7])
    with served(monkeypatch, tmp_path / "cache") as hub:
        push(workdir, REPO, licence="mit")
        hub.requests.clear()
        yield hub


def ask(hub, homes):
    """The exit codes and the outputs of two processes that ask for the model, each with a home."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    started = []
    for process, home in enumerate(homes):
        variables = {"HOME": str(home), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-m", "tests.multiprocess.hub_worker", f"hf://{REPO}", str(process), "2", str(port)]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment() | variables, **output))
    outputs = [process.communicate(timeout=300)[0] for process in started]
    return [process.returncode for process in started], outputs


def downloads(hub):
    return [path for method, path in hub.requests if method == "GET" and path.endswith(".safetensors")]


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_each_host_has_the_model_once(hub, tmp_path, shared):
    homes = [tmp_path / "home"] * 2 if shared else [tmp_path / "home0", tmp_path / "home1"]
    codes, outputs = ask(hub, homes)
    assert codes == [0, 0], "\n".join(outputs)
    folders = [Path(re.search("^run (.*)$", output, re.M)[1]) for output in outputs]
    assert [folder.is_relative_to(home) for folder, home in zip(folders, homes, strict=True)] == [True, True]
    assert len({folder.parent.name for folder in folders}) == 1, "both are of one commit"
    assert latest_record(folders[0]).config.model == latest_record(folders[1]).config.model == runs.CONFIG.model
    assert len(downloads(hub)) == len(set(homes))


@pytest.mark.slow
def test_a_host_that_cannot_have_it_ends_the_job(hub, tmp_path):
    (tmp_path / "home1").mkdir()
    (tmp_path / "home1" / ".cache").write_text("a file")
    codes, outputs = ask(hub, [tmp_path / "home0", tmp_path / "home1"])
    assert codes == [2, 2], outputs
    assert "user error: the job was stopped by another of its processes" in outputs[0]
    assert "user error: " in outputs[1]
