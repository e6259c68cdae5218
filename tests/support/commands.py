"""Runs command lines in processes of their own."""

import os
import subprocess
import sys
import time

import jax

from tests.support.paths import ROOT
from transdiff_jax.checkpoints.store import CheckpointStore
from transdiff_jax.config import MeshConfig
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.training.state import abstract_state

TINY = {
    **{"model.width": 16, "model.heads": 2, "model.encoder_blocks": 1, "model.decoder_blocks": 1},
    **{"train.batch_size": 8, "train.log_every": 1, "train.sample_every": 0, "train.checkpoint_every": 20},
    **{"optimizer.warmup_steps": 5, "sampling.steps": 2, "sampling.batch_size": 4, "model.dropout": 0.1},
}


def command(name, *arguments):
    return [sys.executable, "-m", f"transdiff_jax.cli.{name}", *arguments]


def train_command(workdir, data, **overrides):
    values = {**TINY, "data.directory": data, **{name.replace("__", "."): v for name, v in overrides.items()}}
    flags = [f"--config.{name}={value}" for name, value in values.items()]
    return command("train", f"--config={ROOT}/configs/digits.py", f"--workdir={workdir}", *flags)


def environment():
    # One device, as on a laptop, whatever the test process has, and cheap compilation as in conftest.py.
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    flags = f"{os.environ['XLA_FLAGS']} {flags}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "JAX_NUM_CPU_DEVICES": "1"}


def run(arguments, timeout=300):
    return subprocess.run(arguments, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=timeout)


def start(arguments, log, **variables):
    return subprocess.Popen(
        arguments, cwd=ROOT, env=environment() | variables, stdout=log.open("w"), stderr=subprocess.STDOUT
    )


def wait_for(condition, process, log):
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.005)


def error_line(result):
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line


def read_final(workdir):
    store = CheckpointStore(workdir, keep_last=9)
    step = store.newest_intact()
    record = store.read_record(step)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    state = store.read_state(step, abstract_state(record.config, mesh))
    store.close()
    return step, state, record.data


def sample_set(out):
    """All files of a sample set except the record, which holds times, and the lock."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name not in ("samples.json", ".lock")]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}
