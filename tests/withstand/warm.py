"""A process that has loaded all commands and forks a child for each command line: a case then costs no imports.

It reads one job as JSON from each line of standard input and answers with one line. A child leaves the loop and ends as
the interpreter of a command ends, with the same exit code, threads and exit handlers.
"""

import ctypes
import gc
import importlib
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

# Loaded before the first fork; the commands themselves are loaded anew by each child.
WARM = (
    *(f"transdiff_jax.cli.{name}" for name in ("train", "sample", "evaluate", "cache_latents", "convert", "verify")),
    *("transdiff_jax.cli.benchmark", "transdiff_jax.cli.digits_report", "transdiff_jax.cli.info"),
    *("transdiff_jax.cli.push", "transdiff_jax.cli.main", "safetensors.numpy"),
    *("tests.support.networks", "transdiff_jax.evaluation.inception.weights", "transdiff_jax.evaluation.set_features"),
    *("transdiff_jax.data.sources.tfds", "transdiff_jax.demo.judge", "transdiff_jax.demo.figures"),
    *("sklearn.datasets", "sklearn.linear_model", "matplotlib.pyplot", "PIL.PngImagePlugin", "PIL.JpegImagePlugin"),
    *("tensorboardX", "torch", "grain.python", "orbax.checkpoint", "tensorflow_datasets.core.reader"),
)
NOBODY = 65534
END_WITH_PARENT = 1  # PR_SET_PDEATHSIG
LOOK_EVERY, GRACE = 0.05, 3.0  # seconds


def become(job):
    """Makes the child a fresh process: own session, own folder, own streams, and a bound for its processor time."""
    os.setsid()
    ctypes.CDLL(None).prctl(END_WITH_PARENT, signal.SIGKILL)
    os.chdir(job["folder"])
    streams = [os.open(os.devnull, os.O_RDONLY)]
    streams += [os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644) for name in ("out", "err")]
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ["HOME"] = os.environ["TMPDIR"] = job["home"]
    tempfile.tempdir = None
    resource.setrlimit(resource.RLIMIT_CPU, (job["seconds"], job["seconds"] + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name in [name for name in sys.modules if name.startswith("transdiff_jax.cli.")]:
        del sys.modules[name]
    if job["small"]:
        install_small_network()
    if job["nobody"] and not os.geteuid():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def install_small_network():
    """A projection in place of Inception; its weights are read from a folder by the same code."""
    import jax

    from tests.support.networks import projection
    from transdiff_jax.evaluation import set_features
    from transdiff_jax.evaluation.inception import network, weights

    compute, params, widths = projection(8)
    shapes = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in params.items()}
    weights.param_shapes = lambda: shapes
    set_features.inception_features = compute
    network.WIDTHS.update(widths)


def watch(pid, job):
    """Waits for a child, ends it at its bounds, and says how it ended."""
    handle, started, stopped = os.pidfd_open(pid), time.monotonic(), None
    while not select.select([handle], [], [], LOOK_EVERY)[0]:
        if stopped is None and (stopped := _exceeded(pid, job, time.monotonic() - started)):
            os.killpg(pid, signal.SIGKILL)
    os.close(handle)
    _, status, usage = os.wait4(pid, 0)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "stopped": stopped,
        "cpu": usage.ru_utime + usage.ru_stime,
        "memory": usage.ru_maxrss * 1024,
        "left": _end_others(pid),
    }


def _exceeded(pid, job, wall):
    if wall > job["wall"]:
        return f"still ran after {wall:.0f} s"
    try:
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return None
    return f"took {resident >> 20} MiB" if resident > job["memory"] else None


def _end_others(pid):
    """Whether processes of the child's session outlive it; ends them."""
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline:
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return False
        time.sleep(LOOK_EVERY)
    os.killpg(pid, signal.SIGKILL)
    return True


def serve():
    """Answers jobs; returns the arguments of a child, None when the input ends."""
    for name in WARM:
        importlib.import_module(name)
    warnings.filterwarnings("ignore", "os.fork")
    gc.freeze()  # or each child would copy the pages of all loaded objects when it collects garbage
    print(json.dumps("ready"), flush=True)
    while line := sys.stdin.readline():
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            become(job)
            return job["arguments"]
        print(json.dumps(watch(pid, job)), flush=True)
    return None


if __name__ == "__main__":
    arguments = serve()
    if arguments is not None:
        sys.argv = ["transdiff", *arguments]
        importlib.import_module("transdiff_jax.cli.main").main()
