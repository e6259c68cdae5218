"""Checks KL-16 against a golden file: encoding and decoding."""

import jax
import jax.numpy as jnp
import numpy as np

from transdiff_jax.convert.kl16_names import infer_config, name_table
from transdiff_jax.convert.table import from_reference
from transdiff_jax.errors import UserError
from transdiff_jax.tokenizer.kl16 import LATENT_SCALE, Kl16Tokenizer, posterior
from transdiff_jax.verification.check import ONE_PASS, Check, relative_error
from transdiff_jax.verification.golden import GoldenFile


def make_tokenizer(file: GoldenFile) -> Kl16Tokenizer:
    """The autoencoder of a golden file.

    Raises:
        UserError: the file's `config` contradicts its tensors.
    """
    source = str(file.path)
    config = infer_config(file.weight_shapes(), source)
    file.check_config(
        {
            "ch": config.width,
            "ch_mult": list(config.multipliers),
            "z_channels": config.latent_channels,
            "num_res_blocks": config.blocks,
        }
    )
    params = from_reference(name_table(config), file.weights(), source)
    return Kl16Tokenizer(jax.tree.map(jnp.asarray, params), config)


def check_autoencoder(file: GoldenFile, tokenizer: Kl16Tokenizer) -> list[Check]:
    """Checks moments, mean and standard deviation of images, and the images of latents."""
    config, ours = tokenizer.config, {}
    if "input/image" in file:
        images = file.array("input/image", None, config.image_channels, None, None)
        if images.shape[2] % config.factor or images.shape[3] % config.factor:
            raise UserError(f"{file.path}: its array input/image must have sides that are multiples of {config.factor}")
        moments = jax.jit(Kl16Tokenizer.moments)(tokenizer, _channels_last(images))
        mean, std = posterior(moments)
        ours |= {"output/moments": moments, "output/mean": mean, "output/std": std}
    if "input/latent" in file:
        latents = file.array("input/latent", None, config.latent_channels, None, None)
        ours["output/decoded"] = jax.jit(Kl16Tokenizer.decode)(tokenizer, LATENT_SCALE * _channels_last(latents))
    return [
        Check(name, relative_error(np.moveaxis(value, -1, 1), file[name]), ONE_PASS)
        for name, value in ours.items()
        if name in file
    ]


def _channels_last(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 2, 3, 1)
