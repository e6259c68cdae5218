"""TransDiff-B, 1-step, 256: a published model on a folder of your own images, for a few hundred of them.

Command:   transdiff train --config=configs/finetune_folder.py --workdir=DIR \
               --config.data.source=folder:PATH --config.train.init_from=RUN
Needs:     a folder with one subfolder of images for each class, a run of this size (transdiff-b is the authors'), and
           KL-16 weights made by transdiff convert --kind=kl16. For another size copy this file and set SIZE.
Hardware:  one GPU (docs/your_images.md has times and memory by arithmetic); config.train.accumulation=4 takes less.
Here:      not run by us with the published models, which we could not download. docs/your_images.md says what was.
"""

import ml_collections

from transdiff_jax.model.recipes import published_recipe

SIZE = "b"


def get_config() -> ml_collections.ConfigDict:
    config = published_recipe(SIZE, "one_step_256")

    config.model.num_classes = 0  # as many as the folder has
    config.data.read_threads = 4
    config.data.workers = 2
    config.train.update(
        classes="by_name",
        batch_size=64,
        steps=5_000,
        ema_rates=(0.999,),
        ema_warmup=True,
        log_every=20,
        checkpoint_every=500,
        keep_every=0,
        sample_every=500,
    )
    config.optimizer.update(learning_rate=5e-5, scale_with_batch=False, warmup_steps=100)
    config.sampling.batch_size = 32
    return config
