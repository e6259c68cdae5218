"""One process of a sampling job.

Command: python -m tests.multiprocess.generation_worker OUT PROCESS PROCESSES DEVICES PORT BATCH_SIZE.

DEVICES is the number of this process's devices. Started by generation_test.py.
"""

import sys
from pathlib import Path

import jax

from tests.support.configs import tiny_config
from transdiff_jax.checkpoints.weights import Weights
from transdiff_jax.config import MeshConfig
from transdiff_jax.errors import UserError
from transdiff_jax.generation.generate import generate_samples
from transdiff_jax.generation.request import SampleRequest
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.training.state import create_state

LABELS = tuple(label for label in range(10) for _ in range(5))


def main(out, process, processes, devices, port, batch_size):
    jax.config.update("jax_num_cpu_devices", devices)
    if processes > 1:
        jax.distributed.initialize(f"localhost:{port}", processes, process)
    config = tiny_config(sampling={"batch_size": batch_size, "steps": 40})
    mesh = make_mesh(MeshConfig())
    params = create_state(config, mesh).params
    params = jax.jit(lambda tree: jax.tree.map(lambda p: p + 0.1, tree))(params)
    weights = Weights(config, params, "ema 0.9", 7, "digest")
    try:
        record = generate_samples(weights, SampleRequest(LABELS, seed=1, npz=True), Path(out), mesh)
        print("made", record["images_made"], flush=True)
    except UserError as error:
        print("user error:", error, flush=True)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
