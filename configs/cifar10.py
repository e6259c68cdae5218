"""1-step TransDiff in pixels on CIFAR-10, prepared by TFDS: a first run on real photographs.

Command:   transdiff train --config=configs/cifar10.py --workdir=runs/cifar10
Needs:     tfds build cifar10 --file_format=array_record (with TensorFlow installed, once).
Hardware:  one GPU.
Source:    this project; the sizes are not from the paper.
Here:      neither trained nor scored by us.
"""

import ml_collections

from transdiff_jax.config import default_config_dict

STEPS_PER_EPOCH = 50_000 // 256


def get_config() -> ml_collections.ConfigDict:
    config = default_config_dict()

    config.data.source = "tfds:cifar10"
    config.data.image_size = 32
    config.data.image_channels = 3
    config.data.flip = True
    config.tokenizer.patch = 2

    config.model.width = 384
    config.model.heads = 6
    config.model.encoder_blocks = 8
    config.model.decoder_blocks = 6
    config.model.num_classes = 10
    config.model.class_tokens = 16
    config.model.tokens_per_image = 256
    config.model.latent_size = 16
    config.model.latent_channels = 12

    config.train.batch_size = 256
    config.train.steps = 400 * STEPS_PER_EPOCH
    config.train.ema_rates = (0.9999,)
    config.train.sample_every = 10 * STEPS_PER_EPOCH
    config.train.checkpoint_every = 10 * STEPS_PER_EPOCH
    config.optimizer.learning_rate = 3e-4
    config.optimizer.scale_with_batch = False
    config.optimizer.warmup_steps = 5 * STEPS_PER_EPOCH

    config.sampling.guidance = (1.3,)
    config.sampling.batch_size = 80
    return config
