"""What one process of a job does for all of them."""

import hashlib
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils
from numpy.typing import DTypeLike

from transdiff_jax.errors import UserError


def is_first() -> bool:
    """Whether this process is the one that writes what a job has once: logs, metrics, locks."""
    return jax.process_index() == 0


def in_first_process(action: Callable[[], np.ndarray], size: int, dtype: DTypeLike = bool) -> np.ndarray:
    """What `action`, run in the first process, returns ([size] of bool or int32), in all; every process calls this.

    Raises:
        UserError: `action` raised it; in the other processes it says where to look.
    """
    result, error = np.zeros(size, dtype), None
    if is_first():
        try:
            result = np.asarray(action(), dtype)
        except UserError as caught:
            error = caught
    *result, failed = multihost_utils.broadcast_one_to_all(np.append(result, error is not None))
    if error is not None:
        raise error
    if failed:
        raise UserError("the job was stopped by its first process, whose output says why")
    return np.array(result, dtype)


def do_in_first_process(action: Callable[[], object]) -> None:
    """Runs `action` in the first process while all wait for it; raises like `in_first_process`."""

    def run() -> np.ndarray:
        action()
        return np.zeros(0, bool)

    in_first_process(run, 0)


def check_same(value: str, message: str) -> None:
    """Raises a UserError of `message` in all processes unless all have the same `value`; every process calls this."""
    digest = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8)
    if np.ptp(multihost_utils.process_allgather(digest), axis=0).any():
        raise UserError(message)
