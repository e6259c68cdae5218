"""Grain's worker processes: they end with the process that they work for, and no signal ends them earlier."""

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess

from transdiff_jax.errors import UserError

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


@contextlib.contextmanager
def started_here() -> Iterator[None]:
    """A context for code that may start workers, which inherit that SIGTERM, Ctrl-C and SIGHUP are blocked.

    These signals often reach all processes of a job at once, but the main process still needs a batch to finish its
    step.
    """
    _start_resource_tracker()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    except RuntimeError as error:
        if "Worker process was terminated" not in str(error):
            raise
        raise UserError(
            f"a data worker process ended ({str(error).split('. ')[0]}): code -9 often means a lack of memory, -7 of "
            "space in /dev/shm; lower config.data.workers, config.data.read_threads or config.train.batch_size"
        ) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@functools.cache  # once
def _start_resource_tracker() -> None:
    """Starts Python's helper that frees shared memory when all processes are gone.

    Python would start it later, but it unblocks the signals of the thread that starts it, and it would warn about each
    batch that was under way when a run stopped.
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
    """Ends this worker process when the main process ends, even if that is killed; otherwise Grain's would stay."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), name="end-with-parent", daemon=True).start()


def _end_after(process: BaseProcess) -> None:
    process.join()
    os._exit(1)
