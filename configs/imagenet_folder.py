"""TransDiff-L, 1-step, ImageNet 256, from a folder of JPEG files: the published recipe with another data source.

Command:   transdiff train --config=configs/imagenet_folder.py --workdir=DIR \
               --config.data.source=folder:/data/imagenet/train
Needs:     a folder with one subfolder of images for each class, named by its wnid (n01440764), and KL-16 weights
           made by transdiff convert --kind=kl16.
Hardware:  an accelerator cluster for the paper's batch of 2,048 rows; set config.mesh for yours, and
           config.data.workers so that reading keeps up.
Published: as for configs/transdiff_l.py.
Here:      neither trained nor scored by us: no ImageNet run was made with this code.
"""

import ml_collections

from transdiff_jax.model.recipes import published_recipe


def get_config() -> ml_collections.ConfigDict:
    config = published_recipe("l", "one_step_256")

    config.data.source = "folder:/data/imagenet/train"
    return config
