"""One process of a job that trains with scores, scores, and meets a damaged image: python -m tests.evaluation_worker DIR.

DIR holds what evaluation_processes_test.py has put there, which starts it by launch/local_cluster.sh.
"""

import os
from pathlib import Path

import jax
import pytest
from absl import flags

from tests.conftest import tiny_config
from tests.evaluation.networks import installed, projection
from transdiff_jax.cli import app, evaluate
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation import image_sets
from transdiff_jax.processes import check_same
from transdiff_jax.training.loop import train

COUNT = 28  # images; the last batch of 8 is half full, so that one process of two has nothing to read of it


def score(*arguments):
    evaluate.FLAGS.unparse_flags()
    for flag in evaluate.FLAGS.get_flags_for_module(evaluate):
        flag.unparse()
    evaluate.FLAGS(["evaluate", "--inception=small", "--inception_batch_size=8", *arguments])
    evaluate.main()


def count_decoded(patch):
    """A list that grows by one with each image that this process decodes."""
    decoded, decode = [], image_sets.decode
    patch.setattr(image_sets, "decode", lambda *arguments: decoded.append(1) or decode(*arguments))
    return decoded


def main(files):
    folder = Path(files[0])
    config = tiny_config(
        data={"directory": str(folder / "data")},
        eval={"every": 4, "num_samples": COUNT, "reference": str(folder / "real.npz"), "inception": "small"},
    )
    reference = f"--reference={folder / 'real.npz'}"
    with pytest.MonkeyPatch.context() as patch, installed(patch, projection(8)):
        train(config, folder / "run")
        score(f"--workdir={folder / 'run'}", reference, f"--num_samples={COUNT}")
        decoded = count_decoded(patch)
        score(f"--samples={folder / 'images'}", reference, f"--certificate={folder / 'images.json'}")
        print("decoded", len(decoded), flush=True)
        score(f"--samples={folder / 'images'}", f"--make-reference={folder / 'made.npz'}")
        try:
            check_same(str(jax.process_index()), "they differ")
        except UserError as error:
            print("checked:", error, flush=True)
        score(f"--samples={folder / 'damaged'}", reference, f"--certificate={folder / 'damaged.json'}")


if __name__ == "__main__":
    # The tests' settings ask for eight devices.
    jax.config.update("jax_num_cpu_devices", int(os.environ["JAX_NUM_CPU_DEVICES"]))
    app.run(main, flags.FlagValues(), files=True, several=True, stops_together=True)
