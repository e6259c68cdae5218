"""One process of a job that asks for a model: python -m tests.multiprocess.hub_worker NAME PROCESS PROCESSES PORT.

Started by hub_test.py.
"""

import sys

import jax

from transdiff_jax.errors import UserError
from transdiff_jax.hub.local_runs import local_run


def main(name, process, processes, port):
    jax.config.update("jax_num_cpu_devices", 1)
    jax.distributed.initialize(f"localhost:{port}", processes, process)
    try:
        print("run", local_run(name, "workdir"), flush=True)
    except UserError as error:
        print("user error:", error, flush=True)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
