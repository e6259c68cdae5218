"""Says in one line what a user can do about an error of the machine: its disk, its devices, the other processes."""

import errno

import jax

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# When another process of the job ends, a collective or the coordination service raises an error with one of these.
_LOST = ("Gloo", "NCCL", "coordination service", "CoordinationService", "barrier")


def explain(error: BaseException | None) -> str | None:
    """What a user can do about an error of the machine; None if a user can do nothing."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            return f"no space left to write {error.filename or 'a file'} ({error.strerror}): free some and run again"
        if isinstance(error, OSError) and error.filename is not None:
            return f"{error.filename}: {error.strerror}"
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
            return (
                "the device's memory is too small: lower the batch size, raise config.train.accumulation, set "
                f"config.model.remat=full or shard over more devices ({str(error).splitlines()[0]})"
            )
        # JAX raises a ValueError where a collective fails while its program is dispatched.
        if isinstance(error, jax.errors.JaxRuntimeError | ValueError) and any(name in str(error) for name in _LOST):
            return f"another process of the job ended; its output says why ({str(error).splitlines()[0][:200]})"
        error = error.__cause__ or error.__context__
    return None
