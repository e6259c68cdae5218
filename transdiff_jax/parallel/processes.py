"""Work that one process of a job does for all."""

import hashlib
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.typing import DTypeLike
from jaxtyping import Shaped

from transdiff_jax.errors import UserError


def is_first() -> bool:
    """Whether this process writes what a job has only once: logs, metrics, locks."""
    return jax.process_index() == 0


def in_first_process(
    action: Callable[[], Shaped[np.ndarray, " size"]], size: int, dtype: DTypeLike = bool
) -> Shaped[np.ndarray, " size"]:
    """Runs `action` in the first process and returns its result in all. Every process must call this.

    Args:
        action: what to run.
        size: length of its result.
        dtype: bool or int32.

    Raises:
        UserError: `action` raised it; in the other processes the message says where to look.
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
        raise UserError("the job was stopped by its first process; the output of that process says why")
    return np.array(result, dtype)


def do_in_first_process(action: Callable[[], object]) -> None:
    """Runs `action` in the first process while all others wait. Every process must call this.

    Raises:
        UserError: as in `in_first_process`.
    """

    def run() -> np.ndarray:
        action()
        return np.zeros(0, bool)

    in_first_process(run, 0)


def do_in_every_process(action: Callable[[], object]) -> None:
    """Runs `action` in all processes, each of which must call this.

    Raises:
        UserError: `action` raised it here, or in another process, whose output says why.
    """
    error = None
    try:
        action()
    except UserError as caught:
        error = caught
    failed = multihost_utils.process_allgather(np.array(error is not None))
    if error is not None:
        raise error
    if failed.any():
        raise UserError("the job was stopped by another of its processes; the output of that process says why")


def check_same(value: str, message: str) -> None:
    """Checks that all processes have the same `value`. Every process must call this.

    Raises:
        UserError: with `message`, in all processes, if their values differ.
    """
    digest = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8)
    if np.ptp(multihost_utils.process_allgather(digest), axis=0).any():
        raise UserError(message)
