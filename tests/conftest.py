"""Shared settings and tiny configurations."""

import os

import jax
import pytest

from transdiff_jax.config import Config, default_config_dict, make_config

# Before anything touches a device: the tests shard over eight virtual ones.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_platforms", "cpu")
# Compiling is most of the suite's time, and tiny arrays gain nothing from optimised code.
jax.config.update("jax_disable_most_optimizations", True)
# Nor from XLA's newer way of writing loops for CPUs, which takes twice as long to compile.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"


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


@pytest.fixture(params=[False, True], ids=["one_step", "mrar"])
def config(request) -> Config:
    """The tiny configuration, once for each kind of model."""
    return tiny_config(request.param)


@pytest.fixture(autouse=True, scope="module")
def _programs_of_one_module():
    """Lets go of a module's compiled programs.

    Each holds a few memory maps, and Linux allows a process 65,530: a whole run in one process ended in a
    segmentation fault.
    """
    yield
    jax.clear_caches()
