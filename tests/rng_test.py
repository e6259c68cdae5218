import zlib

import jax
import numpy as np
import pytest

from transdiff_jax import rng

STREAMS = [value for name, value in vars(rng).items() if name.isupper()]


def bits(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_literal_key():
    # Stored samples and resumed runs rely on these numbers.
    assert bits(rng.key(3, "noise", 7)) == (3340701027, 1314122374)
    assert rng.integer_seed(3, "data") == 4228530186


def test_keys_differ_by_seed_stream_and_index():
    keys = {bits(rng.key(seed, stream, index)) for seed in range(3) for stream in STREAMS for index in range(3)}
    assert len(STREAMS) == 13
    assert len(keys) == 3 * len(STREAMS) * 3


def test_streams_keep_apart():
    assert len({zlib.crc32(stream.encode()) for stream in STREAMS}) == len(STREAMS)
    assert len({rng.integer_seed(seed, stream) for seed in range(20) for stream in STREAMS}) == 20 * len(STREAMS)


def test_index_defaults_to_zero():
    assert bits(rng.key(1, rng.PARAMS)) == bits(rng.key(1, rng.PARAMS, 0))


def test_traced_seed_and_index_give_the_same_key():
    traced = jax.jit(lambda seed, index: rng.key(seed, rng.NOISE, index))(3, 7)
    assert bits(traced) == bits(rng.key(3, rng.NOISE, 7))


@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg"])
def test_default_generator_does_not_matter(implementation):
    with jax.default_prng_impl(implementation):
        key = rng.key(3, rng.NOISE, 7)
    assert str(jax.random.key_impl(key)) == "threefry2x32"
    assert bits(key) == (3340701027, 1314122374)


def test_another_generator_has_another_kind_of_key():
    first, again, other = (rng.key(3, rng.DROPOUT, index, kind="rbg") for index in (7, 7, 8))
    assert str(jax.random.key_impl(first)) == "rbg"
    assert bits(first) == bits(again) != bits(other)
