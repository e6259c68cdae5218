"""TransDiff-B, 1-step, ImageNet 256: the published recipe.

Command:   python -m transdiff_jax.cli.train --config=configs/transdiff_b.py --workdir=DIR
Needs:     ImageNet as config.data.source says, and KL-16 weights converted by cli.convert.
Hardware:  the paper's batch of 2,048 rows needs an accelerator cluster; set config.mesh for yours.
Published: FID 2.47, IS 244.2 (50,000 samples, guidance 1.30, arXiv 2506.09482).
Here:      not trained and not scored by us: no ImageNet run has been made with this code. What has been checked is
           that the network agrees with the reference's tensors (docs/parity.md).
"""

import ml_collections

from transdiff_jax.config import default_config_dict

STEPS_PER_EPOCH = 1_281_167 // 2048  # ImageNet's training images, whole batches only


def get_config() -> ml_collections.ConfigDict:
    config = default_config_dict()

    config.data.source = "tfds:imagenet2012"
    config.data.image_size = 256
    config.data.image_channels = 3
    config.data.crop = "random"
    config.data.flip = True
    config.data.read_threads = 16
    config.tokenizer.kind = "kl16"
    config.tokenizer.weights = "runs/kl16"
    config.tokenizer.dtype = "bfloat16"

    config.model.width = 768
    config.model.heads = 12
    config.model.encoder_blocks = 24
    config.model.decoder_blocks = 12
    config.model.num_classes = 1000
    config.model.class_tokens = 64
    config.model.tokens_per_image = 256
    config.model.latent_size = 16
    config.model.latent_channels = 16
    config.model.dropout = 0.1
    config.model.label_dropout = 0.1
    config.model.dtype = "bfloat16"
    config.model.remat = "dots"

    config.loss.pairs_per_latent = 4
    config.train.batch_size = 2048
    config.train.steps = 800 * STEPS_PER_EPOCH
    config.train.ema_rates = (0.9999,)
    config.train.checkpoint_every = 4 * STEPS_PER_EPOCH
    config.train.keep_every = 100 * STEPS_PER_EPOCH
    config.train.sample_every = 4 * STEPS_PER_EPOCH
    config.optimizer.learning_rate = 1e-4
    config.optimizer.scale_with_batch = True
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 100 * STEPS_PER_EPOCH
    config.optimizer.weight_decay = 0.02
    config.optimizer.clip_norm = 3.0

    config.sampling.steps = 100
    config.sampling.guidance = (1.30,)
    config.sampling.drift_scale = 0.87
    config.sampling.noise_scale = 0.91
    config.sampling.batch_size = 256
    return config
