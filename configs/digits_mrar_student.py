"""A few-step student of MRAR on the embedded digits: each image of a sequence in one, two or four passes.

Command:   transdiff distill --config=configs/digits_mrar_student.py --workdir=runs/digits/mrar_student
           (after training configs/digits_mrar.py into runs/digits/mrar)
Hardware:  two CPU cores, two minutes.
Expected:  class agreement 99.1 %, Fréchet distance 0.89 with one pass an image; 0.83 with two (docs/distill.md).
Source:    the toy setting of this project; the sizes are not from the paper.
"""

from pathlib import Path

import ml_collections

from transdiff_jax.config import load_config_dict


def get_config() -> ml_collections.ConfigDict:
    config = load_config_dict(Path(__file__).with_name("digits_student.py"))

    config.model.num_images = 4
    config.model.tokens_per_image = 4
    config.model.mask_tokens = 4
    config.model.reference_patch = 2

    config.train.init_from = "runs/digits/mrar"
    config.train.batch_size = 12  # of four images and two inputs each
    config.train.steps = 540
    config.train.sample_every = 540
    return config
