"""What libtpu, which holds the TPU compiler, must be told before it is loaded."""

from collections.abc import MutableMapping

ARGUMENTS = "LIBTPU_INIT_ARGS"
# Costs of fused matrix products are estimated by recursion. Attention whose weights have dropout fuses several of them,
# for which the stacks of libtpu 0.0.42's compiler threads are too small: "SIGSEGV STACK OVERFLOW" ends the process.
STACK_SIZE = "--fibers_default_thread_stack_size"
_STACK_BYTES = 4 * 2**20


def set_up(environment: MutableMapping[str, str]) -> None:
    """Asks for larger stacks, unless the variable names their size; call before a device is touched.

    Only libtpu reads it: on other devices nothing changes.
    """
    given = environment.get(ARGUMENTS, "")
    if STACK_SIZE not in given:
        environment[ARGUMENTS] = f"{given} {STACK_SIZE}={_STACK_BYTES}".strip()
