"""TransDiff-B, MRAR, ImageNet 256, fine-tuned from the 1-step model: the published recipe.

Command:   python -m transdiff_jax.cli.train --config=configs/transdiff_b_mrar.py --workdir=DIR
Needs:     ImageNet as config.data.source says, and KL-16 weights converted by cli.convert;
           a run of configs/transdiff_b.py (or a converted checkpoint) at config.train.init_from.
Hardware:  the paper's batch of 2,048 rows needs an accelerator cluster; set config.mesh for yours.
Published: FID 2.25, IS 282.2 (50,000 samples, guidance 1.30, arXiv 2506.09482).
Here:      not trained and not scored by us: no ImageNet run has been made with this code. What has been checked is
           that the network agrees with the reference's tensors (docs/parity.md).
"""

from pathlib import Path

import ml_collections

from transdiff_jax.config import load_config_dict


def get_config() -> ml_collections.ConfigDict:
    config = load_config_dict(Path(__file__).with_name("transdiff_b.py"))

    config.model.num_images = 4
    config.model.tokens_per_image = 64
    config.model.mask_tokens = 64
    config.model.reference_patch = 2

    steps_per_epoch = 1_281_167 // 2048  # every image ends one group an epoch
    config.loss.pairs_per_latent = 2
    config.train.init_from = "runs/transdiff_b"
    config.train.steps = 40 * steps_per_epoch
    config.train.keep_every = 10 * steps_per_epoch
    config.optimizer.learning_rate = 5e-5
    config.optimizer.scale_with_batch = False
    config.optimizer.warmup_steps = 10 * steps_per_epoch

    config.sampling.guidance = (1.30,)
    config.sampling.drift_scale = 0.87
    config.sampling.noise_scale = 0.91
    return config
