"""Measures the decoding of latents to pixels. Weights are random, which does not change the time."""

import statistics

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float

from transdiff_jax.benchmark.measuring import seconds
from transdiff_jax.benchmark.tokenizer_flops import published_sizes
from transdiff_jax.config import Config
from transdiff_jax.parallel.arrays import batch_sharding
from transdiff_jax.tokenizer.base import Tokenizer
from transdiff_jax.tokenizer.kl16 import Kl16Autoencoder, Kl16Tokenizer
from transdiff_jax.tokenizer.pixels import PixelTokenizer


def decoding_seconds(config: Config, mesh: Mesh, repetitions: int) -> float:
    """Seconds to decode `config.sampling.batch_size` latents: the median, after one batch that is not timed."""
    model = config.model
    shape = (config.sampling.batch_size, model.latent_size, model.latent_size, model.latent_channels)
    latents = jax.device_put(jnp.zeros(shape), batch_sharding(mesh))
    tokenizer = jax.device_put(_random_tokenizer(config))
    decode = jax.jit(_decode)
    times = [seconds(lambda: decode(tokenizer, latents)) for _ in range(1 + repetitions)]
    return statistics.median(times[1:])


def _decode(tokenizer: Tokenizer, latents: Float[Array, "b h w c"]) -> Float[Array, "b height width channels"]:
    return tokenizer.decode(latents)


def _random_tokenizer(config: Config) -> Tokenizer:
    """The configured tokenizer; KL-16 has its published sizes."""
    if config.tokenizer.kind == "pixels":
        return PixelTokenizer(config.tokenizer.patch)
    sizes = published_sizes(config)
    image = jnp.zeros((1, sizes.factor, sizes.factor, sizes.image_channels))
    params = jax.jit(Kl16Autoencoder(sizes).init)(jax.random.key(0), image)["params"]
    return Kl16Tokenizer(params, sizes, config.tokenizer.slice_size)
