"""A few-step student of 1-step TransDiff on the embedded digits: an image in one, two or four passes.

Command:   transdiff distill --config=configs/digits_student.py --workdir=runs/digits/one_step_student
           (after training configs/digits.py into runs/digits/one_step)
Hardware:  two CPU cores, one minute.
Expected:  class agreement 99.6 %, Fréchet distance 1.17 with one pass; 1.09 with two (docs/distill.md).
Source:    the toy setting of this project; the sizes are not from the paper.
"""

from pathlib import Path

import ml_collections

from transdiff_jax.config import load_config_dict


def get_config() -> ml_collections.ConfigDict:
    config = load_config_dict(Path(__file__).with_name("digits.py"))

    config.model.flow_map = True
    config.distillation.objective = "shortcut"
    config.distillation.guidance = (1.3,)

    config.loss.pairs_per_latent = 2  # one learns the guided velocity, one a jump
    config.train.only = "decoder"
    config.train.init_from = "runs/digits/one_step"
    config.train.batch_size = 48
    config.train.steps = 250
    config.train.ema_rates = (0.995,)
    config.train.ema_warmup = True
    config.train.sample_every = 250
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 50
    config.optimizer.clip_norm = 1.0
    config.optimizer.weight_decay = 0.0

    config.sampling.solver = "flow_map"
    config.sampling.steps = 1
    return config
