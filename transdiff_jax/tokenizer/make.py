"""Makes the tokenizer that a configuration names."""

from transdiff_jax.config import Config
from transdiff_jax.errors import UserError
from transdiff_jax.storage.paths import location
from transdiff_jax.tokenizer.base import Tokenizer
from transdiff_jax.tokenizer.kl16 import Kl16Tokenizer
from transdiff_jax.tokenizer.kl16_weights import load_tokenizer
from transdiff_jax.tokenizer.pixels import PixelTokenizer


def make_tokenizer(config: Config) -> Tokenizer:
    """The tokenizer that a configuration names.

    Raises:
        UserError: its weights cannot be used, or do not fit the configured images or latents.
    """
    if config.tokenizer.kind == "pixels":
        return PixelTokenizer(config.tokenizer.patch)
    return _make_kl16(config)


def _make_kl16(config: Config) -> Kl16Tokenizer:
    c = config.tokenizer
    if not c.weights:
        raise UserError(
            "config.tokenizer.weights (in transdiff sample: --tokenizer) must name a folder with KL-16 weights; make "
            "one with transdiff convert --kind=kl16"
        )
    tokenizer = load_tokenizer(location(c.weights, "config.tokenizer.weights"), c.dtype, c.slice_size)
    for name, wanted, found in (
        ("config.model.latent_channels", config.model.latent_channels, tokenizer.config.latent_channels),
        ("config.data.image_channels", config.data.image_channels, tokenizer.config.image_channels),
    ):
        if wanted != found:
            raise UserError(f"{name}={wanted} does not fit config.tokenizer.weights={c.weights}, which has {found}")
    return tokenizer
