"""Checkpoints: state, data iterator and configuration as one value, saved asynchronously, verified when read.

A manifest with the SHA-256 of each file is committed together with a step, because array files carry no checksum of
their own: a flipped bit would be read as another weight. A step that does not match its manifest is not used:
restoring falls back to the newest intact step, and says so.
"""

import contextlib
import errno
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import jax
import numpy as np
import orbax.checkpoint as ocp

from transdiff_jax.checkpoints import items
from transdiff_jax.checkpoints.record import FOLDER, RUN, RunRecord, read_record
from transdiff_jax.checkpoints.step_names import StepNames, remove_uncommitted, saved_steps
from transdiff_jax.checkpoints.steps import to_resume
from transdiff_jax.errors import UserError
from transdiff_jax.parallel.processes import do_in_first_process, in_first_process
from transdiff_jax.storage.bucket_path import BucketPath
from transdiff_jax.storage.checksums import write_manifest
from transdiff_jax.storage.files import check_lock, lock
from transdiff_jax.storage.leases import Lease

LOCK = ".lock"
_NONE = -1


class _Manager(ocp.CheckpointManager):
    """Saves only when asked. `StopRequest` alone asks JAX whether to stop, with numbers other than the steps."""

    def reached_preemption(self, step: int) -> bool:
        return False


def _barrier(*, key: str, timeout_ms: int) -> None:
    """The barrier in which Orbax waits for other processes; an Orbax thread that handles an error raises it instead.

    Orbax ends every save with a barrier, even a failed one, but the processes that wait for the failed one never reach
    that barrier.
    """
    error = sys.exception()
    if error is not None and threading.current_thread() is not threading.main_thread():
        raise error
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


class CheckpointStore:
    """The checkpoints of one run, in `workdir`/checkpoints."""

    def __init__(self, workdir: Path, *, keep_last: int, keep_every: int = 0) -> None:
        self.folder = workdir / FOLDER
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            local = not isinstance(self.folder, BucketPath)
            if local and not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "no permission to read and write", str(self.folder))
        except OSError as error:
            raise UserError(f"workdir={workdir} cannot be used: {error.strerror}: {error.filename}") from None
        self._lock: IO[str] | Lease | None = None  # held by the first process, for all
        do_in_first_process(lambda: self._take_lock(workdir))
        self._saving: int | None = None
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep_last,
            keep_period=keep_every or None,
            cleanup_tmp_directories=local,  # in a bucket it would delete every folder that is no step
            step_name_format=StepNames(),
            single_host_load_and_broadcast=True,
            lightweight_initialize=True,  # times of steps are not needed, and their file may be damaged
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifest, barrier_sync_fn=_barrier),
        )
        handlers = ocp.handlers.DefaultCheckpointHandlerRegistry()
        handlers.add(None, ocp.args.PyTreeSave, items.array_handler())
        handlers.add(None, ocp.args.JsonSave, ocp.JsonCheckpointHandler())
        self._manager = _Manager(self.folder.absolute(), options=options, handler_registry=handlers)

    def _take_lock(self, workdir: Path) -> None:
        try:
            self._lock = lock(workdir / LOCK)
            if isinstance(self.folder, BucketPath):
                remove_uncommitted(self.folder)
        except OSError as error:
            raise UserError(f"workdir={workdir} cannot be used: {error.strerror}: {error.filename}") from None

    def check_lock(self) -> None:
        """Raises a UserError in the first process if another job has taken over the run, which only a bucket allows."""
        check_lock(self._lock)

    def _write_manifest(self) -> None:
        """Runs in the first process when all files of all processes are complete, before Orbax commits them."""
        if isinstance(self._lock, Lease):
            self._lock.renew()
            write_manifest(self.folder / str(self._saving))
            self._lock.renew()  # reading all files for their digests may take longer than the lease lasts
            return
        (folder,) = self.folder.glob(f"{self._saving}.orbax-checkpoint-tmp*")
        write_manifest(folder)

    def newest_intact(self) -> int | None:
        """The step to resume from, or None for a run without checkpoints; the same in all processes.

        DamageError steps that are newer are moved to `workdir`/damaged, so that the run can save them again.

        Raises:
            UserError: there are steps, but all are damaged.
        """

        def encoded() -> np.ndarray:
            step = to_resume(self.folder)
            return np.array([_NONE if step is None else step])

        (step,) = in_first_process(encoded, 1, np.int32)
        self._manager.reload()
        return None if step == _NONE else int(step)

    def read_record(self, step: int) -> RunRecord:
        """Configuration and data state of an intact step."""
        return read_record(self.folder / str(step))

    def read_state(self, step: int, abstract: items.State) -> items.State:
        """The arrays of a step, with the shapes, dtypes and shardings of `abstract`."""
        return items.read_state(self.folder / str(step), abstract)

    def save(self, step: int, state: items.RunState, record: RunRecord) -> None:
        """Starts saving a step; waits only for the previous save and for the copy to host memory.

        Raises:
            UserError: this or the previous save cannot be written.
        """
        self.wait()
        if step in self._manager.all_steps():
            return  # a run that stops right after a save asks for the same step again
        self._saving = step
        do_in_first_process(lambda: self._check_place(state))
        with self._write_errors():
            arrays = {name: ocp.args.PyTreeSave(tree) for name, tree in items.split(state).items()}
            args = ocp.args.Composite(**arrays, **{RUN: ocp.args.JsonSave(record.to_json())})
            written = self._manager.save(step, args=args)
        if not written:
            raise self._not_written(f"step {self._manager.latest_step()} exists and is not older")

    def _check_place(self, state: items.RunState) -> None:
        """Raises a UserError, before anything is written, if the disk has no space or the run is another job's."""
        if isinstance(self._lock, Lease):
            self._lock.renew()
            return
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise self._not_written(f"it needs {needed / 2**20:.1f} MiB, but {free / 2**20:.1f} MiB are free")

    def _not_written(self, reason: str) -> UserError:
        try:
            kept = f"steps {saved_steps(self.folder)}"
        except OSError:  # a bucket that cannot be reached
            kept = "earlier steps"
        return UserError(
            f"checkpoint of step {self._saving} could not be written to {self.folder} ({reason}); free space or fix "
            f"permissions and start again: {kept} are kept"
        )

    def wait(self) -> None:
        """Returns when the save in progress, if any, is committed; raises like `save`."""
        with self._write_errors():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except (jax.errors.JaxRuntimeError, UserError):
            raise  # a device or another process failed, not the disk, or another job has taken over the run
        except Exception as error:
            if isinstance(error.__cause__, jax.errors.JaxRuntimeError):
                raise error.__cause__ from None  # Orbax reports a timeout, however soon another process ended
            check_lock(self._lock)  # the other job may have deleted what this one was writing
            # Orbax passes on what its writing threads raise: OSError, ValueError from TensorStore, RuntimeError.
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise self._not_written(reason) from error

    def __enter__(self) -> "CheckpointStore":
        return self

    def close(self) -> None:
        """Waits for the save in progress, releases the manager's threads, and gives the run to other jobs."""
        try:
            with self._write_errors():
                self._manager.close()
        finally:
            if self._lock is not None:
                self._lock.close()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Closes, except after an error in a job of several processes: a save in progress would wait for the others."""
        if kind is None or jax.process_count() == 1:
            self.close()
