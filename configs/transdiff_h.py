"""TransDiff-H, 1-step, ImageNet 256: the published recipe.

Command:   python -m transdiff_jax.cli.train --config=configs/transdiff_h.py --workdir=DIR
Needs:     ImageNet as config.data.source says, and KL-16 weights converted by cli.convert.
Hardware:  the paper's batch of 2,048 rows needs an accelerator cluster; set config.mesh for yours.
Published: FID 1.61, IS 282.0 (50,000 samples, guidance 1.23, arXiv 2506.09482).
Here:      not trained and not scored by us: no ImageNet run has been made with this code. What has been checked is
           that the network agrees with the reference's tensors (docs/parity.md).
"""

import ml_collections

from transdiff_jax.model.recipes import published_recipe


def get_config() -> ml_collections.ConfigDict:
    return published_recipe("h", "one_step_256")
