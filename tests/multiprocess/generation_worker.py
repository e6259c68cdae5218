"""One process of a sampling job.

Command: python -m tests.multiprocess.generation_worker OUT PROCESS PROCESSES DEVICES PORT BATCH_SIZE.

DEVICES is the number of this process's devices. Started by generation_test.py.
"""

import sys

import jax
import numpy as np

from tests.support.configs import tiny_config
from tests.support.parameters import random_params
from transdiff_jax.checkpoints.weights import Weights
from transdiff_jax.config import MeshConfig
from transdiff_jax.errors import UserError
from transdiff_jax.generation.generate import generate_samples
from transdiff_jax.generation.request import SampleRequest
from transdiff_jax.model.params import abstract_params
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.storage.paths import location

LABELS = tuple(label for label in range(10) for _ in range(5))


def placed(value, abstract):
    """An array of all processes."""
    return jax.make_array_from_callback(value.shape, abstract.sharding, np.asarray(value).__getitem__)


def main(out, process, processes, devices, port, batch_size):
    jax.config.update("jax_num_cpu_devices", devices)
    if processes > 1:
        jax.distributed.initialize(f"localhost:{port}", processes, process)
    config = tiny_config(sampling={"batch_size": batch_size, "steps": 40})
    mesh = make_mesh(MeshConfig())
    params = jax.tree.map(placed, random_params(config.model), abstract_params(config.model, mesh))
    weights = Weights(config, params, "ema 0.9", 7, "digest")
    try:
        record = generate_samples(weights, SampleRequest(LABELS, seed=1, npz=True), location(out, "out"), mesh)
        print("made", record["images_made"], flush=True)
    except UserError as error:
        print("user error:", error, flush=True)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
