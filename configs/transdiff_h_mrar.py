"""TransDiff-H, MRAR, ImageNet 256, fine-tuned from the 1-step model: the published recipe.

Command:   python -m transdiff_jax.cli.train --config=configs/transdiff_h_mrar.py --workdir=DIR
Needs:     ImageNet as config.data.source says, and KL-16 weights converted by cli.convert;
           a run of configs/transdiff_h.py (or a converted checkpoint) at config.train.init_from.
Hardware:  the paper's batch of 2,048 rows needs an accelerator cluster; set config.mesh for yours.
Published: FID 1.42, IS 301.2 (50,000 samples, guidance 1.28, arXiv 2506.09482).
Here:      not trained and not scored by us: no ImageNet run has been made with this code. What has been checked is
           that the network agrees with the reference's tensors (docs/parity.md).
"""

import ml_collections

from transdiff_jax.model.recipes import published_recipe


def get_config() -> ml_collections.ConfigDict:
    return published_recipe("h", "mrar_256")
