"""TransDiff-L, 1-step, ImageNet 512, decoder fine-tuned from the 256 model: the published recipe.

Command:   python -m transdiff_jax.cli.train --config=configs/transdiff_l_512.py --workdir=DIR
Needs:     ImageNet as config.data.source says, and KL-16 weights converted by cli.convert;
           a run of configs/transdiff_l.py (or a converted checkpoint) at config.train.init_from.
Hardware:  the paper's batch of 2,048 rows needs an accelerator cluster; set config.mesh for yours.
Published: FID 2.51, IS 286.6 (50,000 samples, guidance 1.30, arXiv 2506.09482).
Here:      not trained and not scored by us: no ImageNet run has been made with this code. What has been checked is
           that the network agrees with the reference's tensors (docs/parity.md).
"""

from pathlib import Path

import ml_collections

from transdiff_jax.config import load_config_dict


def get_config() -> ml_collections.ConfigDict:
    config = load_config_dict(Path(__file__).with_name("transdiff_l.py"))

    config.data.image_size = 512
    config.model.latent_size = 32

    steps_per_epoch = 1_281_167 // 2048
    config.train.init_from = "runs/transdiff_l"
    config.train.only = "decoder"
    config.train.steps = 150 * steps_per_epoch
    config.train.keep_every = 25 * steps_per_epoch
    config.train.ema_rates = (0.999,)
    config.optimizer.learning_rate = 1e-4
    config.optimizer.scale_with_batch = False
    config.optimizer.warmup_steps = 10 * steps_per_epoch

    config.sampling.guidance = (1.30,)
    config.sampling.drift_scale = 0.87
    config.sampling.noise_scale = 0.87
    return config
