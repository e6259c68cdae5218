"""TransDiff-B, 1-step, ImageNet 512, decoder fine-tuned from the 256 model: the published recipe.

Command:   transdiff train --config=configs/transdiff_b_512.py --workdir=DIR
Needs:     ImageNet at config.data.source, and KL-16 weights made by transdiff convert --kind=kl16;
           a run of configs/transdiff_b.py (or a converted checkpoint) at config.train.init_from.
Hardware:  an accelerator cluster for the paper's batch of 2,048 rows; set config.mesh for yours.
Published: no score (only L was scored at 512); the sampling settings are those of L at 512, arXiv 2506.09482.
Here:      neither trained nor scored by us: no ImageNet run was made with this code. The network agrees with the
           release's tensors (docs/convert.md).
"""

import ml_collections

from transdiff_jax.model.recipes import published_recipe


def get_config() -> ml_collections.ConfigDict:
    return published_recipe("b", "one_step_512")
