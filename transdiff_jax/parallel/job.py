"""Finds out whether this process belongs to a job of several processes, and joins and leaves the job.

Environment variables request a job. Otherwise it is detected: a SLURM step of several tasks, or a TPU slice of several
workers. Any other process runs alone and waits for nobody. Nothing here touches a device before the job is joined.
"""

import dataclasses
import os
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import jax
from jax._src import distributed  # the only way to offer joint stops later than at the start

from transdiff_jax.errors import UserError

# They request a job: the address of process 0 (host:port), the number of processes, this process's number from 0.
COORDINATOR, PROCESSES, PROCESS = "TRANSDIFF_COORDINATOR", "TRANSDIFF_PROCESSES", "TRANSDIFF_PROCESS"
# Seconds to wait for all processes of a job to start, and seconds until a silent process counts as dead.
START_TIMEOUT, HEARTBEAT_TIMEOUT = "TRANSDIFF_START_TIMEOUT", "TRANSDIFF_HEARTBEAT_TIMEOUT"
DEFAULT_START_TIMEOUT, DEFAULT_HEARTBEAT_TIMEOUT = 300, 60
FAREWELL = 1  # seconds; see `end`

_SLURM_TASKS, _SLURM_TASK = "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"
_TPU_WORKERS = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")  # set on GKE
_SLICES = "MEGASCALE_NUM_SLICES"
_METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"
_METADATA_TIMEOUT = 2  # seconds; the server runs on the same machine


@dataclasses.dataclass(frozen=True)
class Job:
    """A job of several processes. JAX fills in what is None, by `method`."""

    method: str  # cluster_detection_method of `jax.distributed.initialize`
    coordinator: str | None = None  # host:port
    processes: int | None = None
    process: int | None = None


def find_job(environment: Mapping[str, str]) -> Job | None:
    """The job that this process belongs to; None for a process that runs alone.

    Raises:
        UserError: the variables that request a job are incomplete or malformed.
    """
    return _asked(environment) or _slurm(environment) or _tpu(environment)


def _asked(environment: Mapping[str, str]) -> Job | None:
    names = (COORDINATOR, PROCESSES, PROCESS)
    given = {name: environment[name] for name in names if environment.get(name)}
    if not given:
        return None
    missing = [name for name in names if name not in given]
    if missing:
        raise UserError(f"{', '.join(given)} without {', '.join(missing)}: set all three, or none for one process")
    host, _, port = given[COORDINATOR].rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"{COORDINATOR}={given[COORDINATOR]} must be host:port of process 0")
    processes, process = _whole(environment, PROCESSES, 1), _whole(environment, PROCESS, 0)
    if process >= processes:
        raise UserError(f"{PROCESS}={process} must be less than {PROCESSES}={processes}: numbers start at 0")
    return Job("deactivate", given[COORDINATOR], processes, process)


def _slurm(environment: Mapping[str, str]) -> Job | None:
    """A step of srun. Its size distinguishes it from the batch script and from a shell inside a larger allocation."""
    tasks = environment.get(_SLURM_TASKS, "1")
    if not tasks.isdigit() or int(tasks) < 2:
        return None
    return Job("slurm", processes=int(tasks), process=_whole(environment, _SLURM_TASK, 0))


def _tpu(environment: Mapping[str, str]) -> Job | None:
    """A slice of several workers, or several slices. Only a machine with TPU chips asks the metadata server."""
    platforms = environment.get("JAX_PLATFORMS", "")
    if (platforms and "tpu" not in platforms.split(",")) or not _has_tpu():
        return None
    slices = environment.get(_SLICES)
    workers = next((environment[name] for name in _TPU_WORKERS if environment.get(name)), None)
    if workers is not None:
        return Job("gketpu") if len(workers.split(",")) > 1 or (slices or "1") != "1" else None
    several = len(_metadata("worker-network-endpoints").split(",")) > 1 or (slices or _slices_of_metadata()) != "1"
    return Job("gcetpu") if several else None


def _has_tpu() -> bool:
    return Path("/dev/accel0").exists() or any(Path("/dev/vfio").glob("[0-9]*"))


def _slices_of_metadata() -> str:
    """The lines look like MEGASCALE_NUM_SLICES: '2'."""
    entries = (line.partition(":") for line in _metadata("tpu-env").splitlines())
    return next((value.strip().strip("'") for name, _, value in entries if name.strip() == _SLICES), "1")


def _metadata(name: str) -> str:
    request = urllib.request.Request(_METADATA + name, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=_METADATA_TIMEOUT) as reply:
            return reply.read().decode()
    except OSError:  # not a TPU virtual machine of Google Cloud: the device is of another kind
        return ""


def _whole(environment: Mapping[str, str], name: str, least: int, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not text.isdigit() or int(text) < least:
        raise UserError(f"{name}={text} must be a whole number, at least {least}")
    return int(text)


def join(environment: Mapping[str, str]) -> bool:
    """Joins this process's job, if it belongs to one. Call it before any device is touched.

    If the processes do not find each other in time, this one prints one line and exits with code 2.

    Args:
        environment: the variables that request a job or show one.

    Returns:
        Whether there are other processes.

    Raises:
        UserError: the settings are invalid, or process 0 cannot listen at its address.
    """
    job = find_job(environment)
    if job is None or job.processes == 1:
        return False
    timeout = _whole(environment, START_TIMEOUT, 1, DEFAULT_START_TIMEOUT)
    heartbeat = _whole(environment, HEARTBEAT_TIMEOUT, 1, DEFAULT_HEARTBEAT_TIMEOUT)
    jax.config.update("jax_enable_preemption_service", False)  # until `stop_together`, SIGTERM ends the process
    # At its own timeout JAX aborts with a stack trace. This timer fires earlier and says what to check.
    timer = threading.Timer(timeout, _give_up, (job, timeout))
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            job.coordinator,
            job.processes,
            job.process,
            # All devices that the process sees; JAX would take one for each SLURM task.
            local_device_ids=None if "JAX_LOCAL_DEVICE_IDS" in environment else [],
            cluster_detection_method=job.method,
            initialization_timeout=2 * timeout,
            heartbeat_timeout_seconds=heartbeat,
        )
    except (RuntimeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"this process cannot join its job ({_shown(job)}): {reason}; is the port in use?") from error
    finally:
        timer.cancel()
    return True


def _shown(job: Job) -> str:
    if job.coordinator is None:
        return f"of {job.processes} processes, found by {job.method}" if job.processes else f"found by {job.method}"
    return f"process {job.process} of {job.processes}, coordinator {job.coordinator}"


def _give_up(job: Job, timeout: int) -> None:
    print(
        f"error: the processes of the job did not find each other within {timeout} s on {socket.gethostname()} "
        f"({_shown(job)}): check that all have started and can reach the coordinator, or raise {START_TIMEOUT}",
        file=sys.stderr,
    )
    _end_now(2)


def stop_together() -> None:
    """From here on SIGTERM to one process asks all processes of the job to stop at the same place.

    They ask `jax.experimental.multihost_utils.reached_preemption_sync_point` for that place. Every process must call
    this, at about the same time. JAX's handler of SIGTERM stays until the process ends.
    """
    if distributed.global_state.client is not None and distributed.global_state.preemption_sync_manager is None:
        jax.config.update("jax_enable_preemption_service", True)
        distributed.global_state.initialize_preemption_sync_manager()


def leave(code: int) -> NoReturn:
    """Ends this process at once, from any thread, whatever the others do; `end` says why the first one waits."""
    if distributed.global_state.client is not None and distributed.global_state.process_id == 0:
        time.sleep(FAREWELL)
    os._exit(code)


def end(code: int) -> NoReturn:
    """Ends this process with an exit code; in a job of several processes it ends at once.

    An orderly exit would wait for the other processes, which wait for this one. They notice the broken connection
    instead. The coordinator ends with the first process, so that one first gives the others a moment to report errors
    of their own.
    """
    if jax.distributed.is_initialized():
        if jax.process_index() == 0:
            time.sleep(FAREWELL)
        _end_now(code)
    sys.exit(code)


def _end_now(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
