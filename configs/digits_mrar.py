"""MRAR on the embedded digits, fine-tuned from the 1-step run: each image sees those before it.

Command:   transdiff train --config=configs/digits_mrar.py --workdir=runs/digits/mrar
           (after training configs/digits.py into runs/digits/one_step)
Hardware:  two CPU cores, a few minutes.
Expected:  the measurements in docs/benchmarks.md.
Source:    the toy setting of this project; the sizes are not from the paper.
"""

from pathlib import Path

import ml_collections

from transdiff_jax.config import load_config_dict


def get_config() -> ml_collections.ConfigDict:
    config = load_config_dict(Path(__file__).with_name("digits.py"))

    config.model.num_images = 4
    config.model.tokens_per_image = 4
    config.model.mask_tokens = 4
    config.model.reference_patch = 2

    config.loss.pairs_per_latent = 1
    config.train.init_from = "runs/digits/one_step"
    config.train.batch_size = 32
    config.train.steps = 900
    config.optimizer.learning_rate = 1.5e-3
    return config
