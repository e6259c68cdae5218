import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transdiff_jax.convert.kl16_names import name_table
from transdiff_jax.convert.table import from_reference
from transdiff_jax.tokenizer.kl16 import (
    LATENT_SCALE,
    Kl16Autoencoder,
    Kl16Config,
    Kl16Tokenizer,
    draw_latents,
    posterior,
)
from transdiff_jax.verification.golden import RuleWeights

TINY = Kl16Config(width=32, multipliers=(1, 2), blocks=1, attention_levels=(1,), latent_channels=4)


@pytest.fixture(scope="module")
def tokenizer():
    table = name_table(TINY)
    return Kl16Tokenizer(from_reference(table, RuleWeights(table.reference_shapes(), seed=1), "rule"), TINY)


def images(count):
    return jax.random.uniform(jax.random.key(1), (count, 8, 12, 3), minval=-1)


def test_published_size():
    config = Kl16Config()
    assert config.factor == 16
    params = jax.eval_shape(lambda: Kl16Autoencoder(config).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 66_456_019


def test_posterior():
    moments = jnp.array([[1.0, 2.0, 0.0, 2 * jnp.log(3.0)], [0.0, 0.0, -1000.0, 1000.0]])
    mean, std = posterior(moments)
    np.testing.assert_allclose(mean, [[1, 2], [0, 0]])
    np.testing.assert_allclose(std, [[1, 3], [np.exp(-15), np.exp(10)]], rtol=1e-6)


def test_latents_are_scaled_samples_of_the_posterior():
    moments = jnp.broadcast_to(jnp.array([1.0, -2.0, 0.0, 2 * jnp.log(3.0)]), (100_000, 4))
    latents = draw_latents(moments, jax.random.key(0)) / LATENT_SCALE
    np.testing.assert_allclose(latents.mean(axis=0), [1, -2], atol=0.05)
    np.testing.assert_allclose(latents.std(axis=0), [1, 3], rtol=0.02)


def test_draws_from_the_moments_of_any_precision(tokenizer):
    key, moments = jax.random.key(3), tokenizer.moments(images(2))
    latents = tokenizer.draw(moments, key)
    assert latents.shape == (2, 4, 6, 4)
    np.testing.assert_array_equal(latents, draw_latents(moments, key))
    half = tokenizer.draw(moments.astype(jnp.float16), key)
    assert half.dtype == jnp.float32
    np.testing.assert_array_equal(half, tokenizer.draw(moments.astype(jnp.float16).astype(jnp.float32), key))


def test_decode_undoes_the_scale(tokenizer):
    latents = jax.random.normal(jax.random.key(2), (2, 4, 6, 4))
    ours = tokenizer.decode(LATENT_SCALE * latents)
    assert ours.shape == (2, 8, 12, 3)
    unscaled = Kl16Autoencoder(TINY).apply({"params": tokenizer.params}, latents, method=Kl16Autoencoder.decode)
    np.testing.assert_allclose(ours, unscaled, atol=1e-5)


def test_slices_change_nothing(tokenizer):
    sliced = tokenizer.replace(slice_size=2)
    key, batch = jax.random.key(3), images(5)
    latents = tokenizer.draw(tokenizer.moments(batch), key)
    np.testing.assert_allclose(sliced.draw(sliced.moments(batch), key), latents, atol=1e-5)
    np.testing.assert_allclose(sliced.decode(latents), tokenizer.decode(latents), atol=1e-5)


def test_leading_axes_are_kept(tokenizer):
    batch = images(6)
    moments = tokenizer.moments(batch.reshape(3, 2, 8, 12, 3))
    np.testing.assert_allclose(moments.reshape(6, 4, 6, 8), tokenizer.moments(batch), atol=1e-6)


def test_tokenizer_is_an_argument_of_a_jitted_function(tokenizer):
    jitted = jax.jit(lambda tokenizer, images: tokenizer.moments(images))
    np.testing.assert_allclose(jitted(tokenizer, images(1)), tokenizer.moments(images(1)), atol=1e-5)


def test_bfloat16_computes_in_bfloat16_and_returns_float32(tokenizer):
    half = tokenizer.replace(config=dataclasses.replace(TINY, dtype="bfloat16"))
    full, low = tokenizer.moments(images(2)), half.moments(images(2))
    assert low.dtype == jnp.float32
    assert 1e-4 < jnp.linalg.norm(low - full) / jnp.linalg.norm(full) < 3e-2


def test_sides_must_divide(tokenizer):
    with pytest.raises(ValueError, match=r"multiples of 2 and 3 channels, got \(1, 9, 8, 3\)"):
        tokenizer.moments(jnp.zeros((1, 9, 8, 3)))
    with pytest.raises(ValueError, match=r"3 channels, got \(1, 8, 8, 1\)"):
        tokenizer.moments(jnp.zeros((1, 8, 8, 1)))
