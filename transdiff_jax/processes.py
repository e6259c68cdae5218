"""What one process of a job does for all of them."""

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from transdiff_jax.errors import UserError


def in_first_process(action: Callable[[], np.ndarray], size: int) -> np.ndarray:
    """What `action`, run in the first process, returns (bool [size]), in all of them; every process calls this.

    Raises:
        UserError: `action` raised it; in the other processes it says where to look.
    """
    result, error = np.zeros(size, bool), None
    if jax.process_index() == 0:
        try:
            result = action()
        except UserError as caught:
            error = caught
    *result, failed = multihost_utils.broadcast_one_to_all(np.append(result, error is not None))
    if error is not None:
        raise error
    if failed:
        raise UserError("the job was stopped by its first process, whose output says why")
    return np.array(result, bool)
