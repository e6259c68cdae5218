import jax
import jax.numpy as jnp
import numpy as np

from tests.support.configs import tiny_config
from transdiff_jax.benchmark.tokenizer_flops import decode_flops, kl16_decode_flops
from transdiff_jax.tokenizer.kl16 import Kl16Autoencoder, Kl16Config


def test_the_count_is_that_of_the_compiler():
    config = Kl16Config(width=32, multipliers=(1, 2), latent_channels=16)
    model = Kl16Autoencoder(config)
    latents = jax.ShapeDtypeStruct((1, 64, 64, 16), jnp.float32)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3))))
    decode = jax.jit(lambda params, x: model.apply(params, x, method=Kl16Autoencoder.decode))
    counted = decode.lower(params, latents).cost_analysis()["flops"]
    # The compiler leaves out what falls on the padding, and counts norms and activations.
    np.testing.assert_allclose(kl16_decode_flops(config, 64), counted, rtol=0.05)


def test_the_published_tokenizer_and_pixels():
    assert 0.2e12 < kl16_decode_flops(Kl16Config(), 16) < 0.4e12
    assert decode_flops(tiny_config()) == 0
