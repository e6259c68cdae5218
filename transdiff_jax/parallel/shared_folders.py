"""Proves that all processes of a job see one folder, before they trust that they do."""

import contextlib
import secrets
import time
from pathlib import Path

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from transdiff_jax.errors import UserError
from transdiff_jax.parallel.processes import in_first_process
from transdiff_jax.storage.files import write_bytes

PATIENCE = 30.0  # seconds until a network file system shows a new file to other hosts
_BYTES = 16
_PAUSE = 0.1
_MARK = ".shared.{nonce}.tmp"  # `remove_temporaries` removes what a kill leaves


def check_shared(folder: Path, name: str) -> None:
    """Checks that all processes see the folder of the first one, which is made. Every process must call this.

    The first process writes a file of a random name, and all look for it.

    Args:
        folder: the folder.
        name: what holds it, for errors, such as "workdir".

    Raises:
        UserError: in all processes, if one does not see it within `PATIENCE`, or if it cannot be written.
    """
    if jax.process_count() == 1:
        return
    nonce = bytes(map(int, in_first_process(lambda: _write(folder, name), _BYTES, np.int32))).hex()
    mark = folder / _MARK.format(nonce=nonce)
    unseen = np.flatnonzero(multihost_utils.process_allgather(np.array(not _appears(mark))))
    if jax.process_index() == 0:
        with contextlib.suppress(OSError):
            mark.unlink(missing_ok=True)
    if unseen.size:
        shown = ", ".join(map(str, unseen[:8])) + (", …" if unseen.size > 8 else "")
        raise UserError(
            f"{name}={folder} is not one folder for all processes of the job: {shown} of {jax.process_count()} do not "
            "see what process 0 writes there; mount the same file system on all hosts, or name another folder"
        )


def _write(folder: Path, name: str) -> np.ndarray:
    nonce = secrets.token_bytes(_BYTES)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / _MARK.format(nonce=nonce.hex()), b"")
    except OSError as error:
        raise UserError(f"{name}={folder} cannot be used: {error}") from None
    return np.frombuffer(nonce, np.uint8)


def _appears(mark: Path) -> bool:
    """Whether a process sees a file in time. One that cannot look says so, and must not leave the others waiting."""
    deadline, problem = time.monotonic() + PATIENCE, ""
    while time.monotonic() < deadline:
        try:
            if mark.exists():
                return True
        except (OSError, UserError) as error:
            problem = str(error)
        time.sleep(_PAUSE)
    if problem:
        logging.warning("process %d cannot look for %s: %s", jax.process_index(), mark, problem)
    return False
