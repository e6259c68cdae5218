"""1-step TransDiff on the embedded digits: the demo, and the smallest real run.

Command:   transdiff train --config=configs/digits.py --workdir=runs/digits/one_step
Hardware:  two CPU cores, a few minutes.
Expected:  the measurements in docs/benchmarks.md.
Source:    the toy setting of this project; the sizes are not from the paper.
"""

import ml_collections

from transdiff_jax.config import default_config_dict


def get_config() -> ml_collections.ConfigDict:
    config = default_config_dict()

    config.data.source = "digits"
    config.data.directory = "runs/data"
    config.data.image_size = 8
    config.data.image_channels = 1
    config.tokenizer.patch = 2

    config.model.width = 64
    config.model.heads = 4
    config.model.encoder_blocks = 2
    config.model.decoder_blocks = 3
    config.model.num_classes = 10
    config.model.class_tokens = 4
    config.model.tokens_per_image = 16
    config.model.latent_size = 4
    config.model.latent_channels = 4
    config.model.dropout = 0.0

    config.loss.pairs_per_latent = 2
    config.train.batch_size = 64
    config.train.steps = 1800
    config.train.ema_rates = (0.998,)
    config.train.log_every = 20
    config.train.sample_every = 600
    config.train.checkpoint_every = 300
    config.optimizer.learning_rate = 3e-3
    config.optimizer.scale_with_batch = False
    config.optimizer.warmup_steps = 60
    config.optimizer.schedule = "cosine"

    config.sampling.steps = 25
    config.sampling.guidance = (1.3,)
    config.sampling.batch_size = 256
    return config
