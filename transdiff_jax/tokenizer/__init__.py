"""Between images and the latents that the model works on."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.tokenizer.base import Tokenizer
    from transdiff_jax.tokenizer.kl16 import Kl16Tokenizer
    from transdiff_jax.tokenizer.make import make_tokenizer
    from transdiff_jax.tokenizer.pixels import PixelTokenizer

__all__ = [
    "Kl16Tokenizer",
    "PixelTokenizer",
    "Tokenizer",
    "make_tokenizer",
]
