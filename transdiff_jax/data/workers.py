"""Grain's worker processes: they end with the process that they work for, and at no signal before it."""

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker

from transdiff_jax.errors import UserError

_SIGNALS = {signal.SIGTERM, signal.SIGINT}


@contextlib.contextmanager
def started_here() -> Iterator[None]:
    """Around what may start workers: they inherit that SIGTERM and Ctrl-C are blocked.

    Both are often sent to all processes of a job at once, and the main one still needs a batch to finish its step.
    """
    _start_resource_tracker()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    except RuntimeError as error:
        if "Worker process was terminated" not in str(error):
            raise
        raise UserError(
            f"a data worker process ended ({str(error).split('. ')[0]}): code -9 is often a lack of memory, -7 of "
            "space in /dev/shm; lower config.data.workers, config.data.read_threads or config.train.batch_size"
        ) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@functools.cache  # once
def _start_resource_tracker() -> None:
    """Python's helper that frees shared memory when all processes are gone.

    Started here since it unblocks the signals of the thread that starts it, and since it would warn of each batch
    that was under way when a run stopped.
    """
    name, before = "PYTHONWARNINGS", os.environ.get("PYTHONWARNINGS")
    os.environ[name] = ",".join(filter(None, [before, "ignore:resource_tracker:UserWarning"]))
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def end_with_parent() -> None:
    """Makes this worker process end when the main process does, also when that was killed; Grain's would stay."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
