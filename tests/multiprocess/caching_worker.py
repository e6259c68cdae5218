"""One process of a caching job: python -m tests.multiprocess.caching_worker OUT WEIGHTS PROCESS PROCESSES PORT COUNT.

Started by caching_test.py.
"""

import sys
from pathlib import Path

import jax

from tests.support.latents import Photographs, photo_config
from transdiff_jax.data.latents import encode
from transdiff_jax.data.latents.job import LatentJob
from transdiff_jax.errors import UserError

SHARD = 8


def main(out, weights, process, processes, port, count):
    jax.config.update("jax_num_cpu_devices", 1)
    if processes > 1:
        jax.distributed.initialize(f"localhost:{port}", processes, process)
    verify = LatentJob.intact

    def verify_and_tell(job, numbers):
        print("verifies", numbers, flush=True)
        return verify(job, numbers)

    LatentJob.intact = verify_and_tell
    encode.open_source = lambda *_: Photographs(count, {11})
    try:
        config = photo_config(weights, data={"max_unreadable": 0.1})
        manifest = encode.cache_latents(config, Path(out), shard_records=SHARD)
        print("records", manifest.records, flush=True)
    except UserError as error:
        print("user error:", error, flush=True)
        sys.exit(2)


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
