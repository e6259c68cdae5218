"""One process of a training job whose devices are not neighbours in the mesh.

Command: python -m tests.multiprocess.training_worker DIR.

TPUs are like that: the mesh follows the network, in which a process has a square of chips. training_test.py starts this
with launch/local_cluster.sh.
"""

import os
from pathlib import Path

import jax
import numpy as np
from absl import flags

from tests.support.configs import tiny_config
from transdiff_jax.cli import app
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.training import loop
from transdiff_jax.training.loop import train

SETTINGS = {
    "train": {
        "batch_size": 16,
        "steps": 4,
        "log_every": 1,
        "checkpoint_every": 2,
        "accumulation": 2,
    },
    "optimizer": {"warmup_steps": 0},
    "mesh": {"data": 2, "fsdp": -1},
}


def main(arguments):
    taking_turns = np.array(jax.devices()).reshape(2, -1).T.flatten()
    loop.make_mesh = lambda config: make_mesh(config, taking_turns.tolist())
    folder = Path(arguments[0])
    train(tiny_config(data={"directory": str(folder)}, **SETTINGS), folder / "job")


if __name__ == "__main__":
    # The settings of the tests ask for eight devices, which is right only for a process on its own.
    jax.config.update("jax_num_cpu_devices", int(os.environ["JAX_NUM_CPU_DEVICES"]))
    app.run(main, flags.FlagValues(), files=True, several=True)
