"""A few-step student of TransDiff-H, 1-step, ImageNet 256: an image in one, two or four passes.

Command:   transdiff distill --config=configs/transdiff_h_student.py --workdir=DIR
Needs:     ImageNet at config.data.source, and KL-16 weights made by transdiff convert --kind=kl16;
           a run of configs/transdiff_h.py (or a converted checkpoint) at config.train.init_from.
Hardware:  an accelerator cluster; set config.mesh for yours.
Published: nothing; this recipe is ours.
Here:      an untested recipe: no such student was trained or scored (docs/distill.md).
"""

import ml_collections

from transdiff_jax.model.recipes import student_recipe


def get_config() -> ml_collections.ConfigDict:
    return student_recipe("h", "one_step_256")
