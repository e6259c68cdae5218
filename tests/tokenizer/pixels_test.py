import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.configs import tiny_config
from transdiff_jax.tokenizer.make import make_tokenizer
from transdiff_jax.tokenizer.pixels import PixelTokenizer

KEY = jax.random.key(0)


def test_a_square_of_pixels_is_one_position():
    image = jnp.arange(16.0).reshape(4, 4, 1)
    latent = PixelTokenizer(2).moments(image)
    assert latent.tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7]], [[8, 9, 12, 13], [10, 11, 14, 15]]]
    assert PixelTokenizer(2).decode(latent)[..., 0].tolist() == image[..., 0].tolist()


@pytest.mark.parametrize("lead", [(), (3,), (2, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_decode_inverts_encode(lead, channels):
    images = np.random.default_rng(0).uniform(-1, 1, (*lead, 8, 8, channels)).astype(np.float32)
    tokenizer = PixelTokenizer(2)
    latents = jax.jit(lambda images: tokenizer.draw(tokenizer.moments(images), KEY))(images)
    assert latents.shape == (*lead, 4, 4, 4 * channels)
    np.testing.assert_array_equal(jax.jit(tokenizer.decode)(latents), images)


def test_the_configuration_names_the_patch():
    config = tiny_config(tokenizer={"patch": 4}, model={"latent_size": 2, "latent_channels": 16})
    assert make_tokenizer(config) == PixelTokenizer(4)
