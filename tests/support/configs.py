"""Tiny configurations."""

from transdiff_jax.config import Config, default_config_dict, make_config


def tiny_config(mrar: bool = False, **sections) -> Config:
    """A model of a few thousand parameters on 4x4 latents of 4 channels (8x8 grey images).

    Keyword arguments are sections with the fields to change: `tiny_config(train={"steps": 3})`.
    """
    config = default_config_dict()
    config.model.update(
        width=16,
        heads=2,
        encoder_blocks=2,
        decoder_blocks=2,
        num_classes=10,
        class_tokens=3,
        tokens_per_image=16,
        latent_size=4,
        latent_channels=4,
        dropout=0.0,
    )
    if mrar:
        config.model.update(num_images=4, tokens_per_image=4, mask_tokens=4, reference_patch=2)
    config.loss.pairs_per_latent = 2
    config.train.update(batch_size=8, steps=4, ema_rates=(0.9,), checkpoint_every=2, log_every=1)
    config.sampling.update(steps=3, batch_size=8)
    for section, fields in sections.items():
        config[section].update(fields)
    return make_config(config.to_dict())


def write_config(config, folder):
    file = folder / "config.py"
    values = f"ml_collections.ConfigDict({config.to_dict()!r})"
    file.write_text(f"import ml_collections\n\ndef get_config():\n    return {values}\n")
    return file
