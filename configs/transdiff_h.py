"""TransDiff-H, 1-step, ImageNet 256: the published recipe.

Command:   python -m transdiff_jax.cli.train --config=configs/transdiff_h.py --workdir=DIR
Needs:     ImageNet as config.data.source says, and KL-16 weights converted by cli.convert.
Hardware:  the paper's batch of 2,048 rows needs an accelerator cluster; set config.mesh for yours.
Published: FID 1.61, IS 282.0 (50,000 samples, guidance 1.23, arXiv 2506.09482).
Here:      not trained and not scored by us: no ImageNet run has been made with this code. What has been checked is
           that the network agrees with the reference's tensors (docs/parity.md).
"""

from pathlib import Path

import ml_collections

from transdiff_jax.config import load_config_dict


def get_config() -> ml_collections.ConfigDict:
    config = load_config_dict(Path(__file__).with_name("transdiff_b.py"))

    config.model.width = 1280
    config.model.heads = 16
    config.model.encoder_blocks = 40
    config.model.decoder_blocks = 20

    config.sampling.guidance = (1.23,)
    config.sampling.drift_scale = 0.87
    config.sampling.noise_scale = 0.93
    return config
