"""TransDiff-H, MRAR, ImageNet 256, fine-tuned from the 1-step model: the published recipe.

Command:   transdiff train --config=configs/transdiff_h_mrar.py --workdir=DIR
Needs:     ImageNet at config.data.source, and KL-16 weights made by transdiff convert --kind=kl16;
           a run of configs/transdiff_h.py (or a converted checkpoint) at config.train.init_from.
Hardware:  an accelerator cluster for the paper's batch of 2,048 rows; set config.mesh for yours.
Published: FID 1.42, IS 301.2 (50,000 samples, guidance 1.28, arXiv 2506.09482).
Here:      neither trained nor scored by us: no ImageNet run was made with this code. The network agrees with the
           release's tensors (docs/convert.md).
"""

import ml_collections

from transdiff_jax.model.recipes import published_recipe


def get_config() -> ml_collections.ConfigDict:
    return published_recipe("h", "mrar_256")
