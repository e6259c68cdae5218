"""One process of a job that scores: python -m tests.multiprocess.evaluation_worker DIR score|stop.

evaluation_test.py writes the images and references in DIR, and starts this with launch/local_cluster.sh.
"""

import os
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags

from tests.support.configs import tiny_config
from tests.support.flags import run
from tests.support.networks import installed, projection
from transdiff_jax.cli import app, evaluate, sampling_flags
from transdiff_jax.errors import UserError
from transdiff_jax.generation import sample_reader
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.parallel.processes import check_same
from transdiff_jax.training.loop import train

COUNT = 28  # images; the second of two processes has nothing to read in the last batch of 8


def score(*arguments):
    run(evaluate, "--inception=small", "--inception_batch_size=8", *arguments)


def train_with_scores(folder, steps, num_samples):
    scores = {"every": 2, "num_samples": num_samples, "reference": str(folder / "real.npz"), "inception": "small"}
    config = tiny_config(
        data={"directory": str(folder / "data")},
        model={"encoder_blocks": 1, "decoder_blocks": 1},
        train={"steps": steps},
        sampling={"steps": 2},
        eval=scores,
    )
    train(config, folder / "run")


def count_decoded(patch):
    """A list that grows with each image that this process decodes."""
    decoded, decode = [], sample_reader.decode
    patch.setattr(sample_reader, "decode", lambda data, channels: decoded.append(1) or decode(data, channels))
    return decoded


def score_everything(folder, patch):
    """Trains with scores, scores in every way, and fails at a damaged image."""
    reference = f"--reference={folder / 'real.npz'}"
    train_with_scores(folder, 2, COUNT)
    score(f"--workdir={folder / 'run'}", reference, f"--num_samples={COUNT}")
    decoded = count_decoded(patch)
    with patch.context() as context:
        # The devices of a process need not be neighbours in a mesh. On TPUs they are not.
        taking_turns = np.array(jax.devices()).reshape(2, -1).T.flatten()
        for module in (evaluate, sampling_flags):
            context.setattr(
                module, "make_mesh", lambda config, **field: make_mesh(config, taking_turns.tolist(), **field)
            )
        score(f"--samples={folder / 'images'}", reference)
    print("decoded", len(decoded), flush=True)
    score(f"--samples={folder / 'images'}", f"--make-reference={folder / 'made.npz'}")
    try:
        check_same(str(jax.process_index()), "they differ")
    except UserError as error:
        print("checked:", error, flush=True)
    score(f"--samples={folder / 'damaged'}", reference)


def main(arguments):
    folder, task = Path(arguments[0]), arguments[1]
    with pytest.MonkeyPatch.context() as patch, installed(patch, projection(8)):
        if task == "score":
            score_everything(folder, patch)
        else:
            train_with_scores(folder, 3, 20_000)


if __name__ == "__main__":
    # The settings of the tests ask for eight devices, which is right only for a process on its own.
    jax.config.update("jax_num_cpu_devices", int(os.environ["JAX_NUM_CPU_DEVICES"]))
    app.run(main, flags.FlagValues(), files=True, several=True)
