"""Settings that libtpu, which contains the TPU compiler, needs before it is loaded."""

from collections.abc import MutableMapping

ARGUMENTS = "LIBTPU_INIT_ARGS"
# The compiler estimates the cost of fused matrix products by recursion. Attention with dropout on its weights fuses
# several products, and the stacks of libtpu 0.0.42's compiler threads are too small for that: the process ends with
# "SIGSEGV STACK OVERFLOW".
STACK_SIZE = "--fibers_default_thread_stack_size"
_STACK_BYTES = 4 * 2**20


def set_up(environment: MutableMapping[str, str]) -> None:
    """Requests larger stacks, unless the variable already sets their size. Call it before a device is touched.

    Only libtpu reads the variable; other devices are not affected.
    """
    given = environment.get(ARGUMENTS, "")
    if STACK_SIZE not in given:
        environment[ARGUMENTS] = f"{given} {STACK_SIZE}={_STACK_BYTES}".strip()
