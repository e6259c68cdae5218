"""TransDiff-L, 1-step, ImageNet 256, from a folder of JPEG files: the published recipe with another source.

Command:   python -m transdiff_jax.cli.train --config=configs/imagenet_folder.py --workdir=DIR \
               --config.data.source=folder:/data/imagenet/train
Needs:     a folder with one subfolder of images for each class, named by its wnid (n01440764), and KL-16 weights
           converted by cli.convert.
Hardware:  the paper's batch of 2,048 rows needs an accelerator cluster; set config.mesh for yours, and
           config.data.workers so that reading keeps up.
Published: as configs/transdiff_l.py.
Here:      not trained and not scored by us: no ImageNet run has been made with this code.
"""

import ml_collections

from transdiff_jax.model.recipes import published_recipe


def get_config() -> ml_collections.ConfigDict:
    config = published_recipe("l", "one_step_256")

    config.data.source = "folder:/data/imagenet/train"
    config.data.read_threads = 2
    config.data.workers = 8
    return config
