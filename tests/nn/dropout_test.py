import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from jax.sharding import NamedSharding, PartitionSpec

from tests.support.collectives import moved
from transdiff_jax.config import MeshConfig
from transdiff_jax.nn.dropout import Dropout, dropped_levels, keep_mask
from transdiff_jax.parallel.mesh import make_mesh

KINDS = ("threefry2x32", "rbg")


@pytest.mark.parametrize(
    ("rate", "levels"), [(0.0, 0), (0.001, 1), (0.1, 26), (0.25, 64), (0.5, 128), (0.999, 255), (1 - 1e-9, 255)]
)
def test_a_rate_is_a_number_of_byte_values(rate, levels):
    assert dropped_levels(rate) == levels


@pytest.mark.parametrize("shape", [(5,), (8,), (3, 7), (2, 23, 3), (3, 2, 16, 5)], ids=str)
def test_a_mask_is_the_bytes_of_threefry(shape):
    *lead, size, last = shape if len(shape) > 1 else (*shape, 1)
    blocks = (*lead, -(-size // 8), last)
    row, place = np.divmod(np.arange(math.prod(blocks), dtype=np.uint32), np.uint32(math.prod(blocks[1:])))
    words = threefry_2x32(jax.random.key_data(jax.random.key(3)), np.concatenate([row, place]))
    first, second = np.asarray(words).reshape(2, *blocks)
    levels = np.empty((*lead, 8 * blocks[-2], last), np.uint32)
    for byte in range(4):  # of each word, the lowest first
        levels[..., byte::8, :] = first >> (8 * byte) & 255
        levels[..., 4 + byte :: 8, :] = second >> (8 * byte) & 255
    expected = (levels[..., :size, :] >= 64).reshape(shape)
    np.testing.assert_array_equal(keep_mask(jax.random.key(3), 0.25, shape), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_elements_are_dropped_independently_and_equally_often(kind, rate):
    dropped = ~np.asarray(keep_mask(jax.random.key(1, impl=kind), rate, (500, 1000)))
    expected = dropped_levels(rate) / 256
    assert abs(expected - rate) <= 1 / 512
    deviation = (expected * (1 - expected)) ** 0.5
    assert abs(dropped.mean() - expected) < 4 * deviation / dropped.size**0.5
    by_byte = dropped[:496].reshape(62, 8, 1000).mean(axis=(0, 2))  # each byte of a block
    assert np.abs(by_byte - expected).max() < 4 * deviation / (dropped.size / 8) ** 0.5
    centered = (dropped - expected) / deviation
    for shift in (1, 1000, 4000, 8000):  # between blocks, within a word, between words, between blocks
        assert abs(np.mean(centered.ravel()[shift:] * centered.ravel()[:-shift])) < 4 / dropped.size**0.5


@pytest.mark.parametrize("kind", KINDS)
def test_keys_decide_the_mask(kind):
    one, again, other = (keep_mask(jax.random.key(k, impl=kind), 0.5, (64, 64)) for k in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert abs(np.mean(one == other) - 0.5) < 0.05


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axes", [("data", None, None), ("data", None, "tensor"), (None, "tensor", None)], ids=str)
def test_sharded_equals_single(kind, axes):
    mesh = make_mesh(MeshConfig(data=4, fsdp=1, tensor=2))
    key, shape = jax.random.key(5, impl=kind), (8, 6, 32)
    sharded = jax.jit(lambda key: keep_mask(key, 0.3, shape), out_shardings=NamedSharding(mesh, PartitionSpec(*axes)))
    np.testing.assert_array_equal(sharded(key), keep_mask(key, 0.3, shape))


def test_a_device_draws_blocks_for_its_own_elements_only():
    mesh = make_mesh(MeshConfig(data=4, fsdp=1, tensor=2))
    out = NamedSharding(mesh, PartitionSpec("data", None, "tensor"))
    program = (
        jax.jit(lambda key: keep_mask(key, 0.3, (8, 48, 20)), out_shardings=out).lower(jax.random.key(0)).compile()
    )
    assert moved(program) == []
    assert "u32[2,6,10]" in program.as_text(), "48 tokens, in 6 blocks"
    assert "u32[8,6,20]" not in program.as_text()


def test_dropout_is_on_only_with_a_key():
    x = jnp.ones((100, 100))
    np.testing.assert_array_equal(Dropout(0.5).apply({}, x), x)
    np.testing.assert_array_equal(Dropout(0.5).apply({}, x, rngs={"params": jax.random.key(0)}), x)
    np.testing.assert_array_equal(Dropout(0.0).apply({}, x, rngs={"dropout": jax.random.key(0)}), x)
    dropped = Dropout(0.5).apply({}, x, rngs={"dropout": jax.random.key(0)})
    assert set(np.unique(dropped)) == {0.0, 2.0}
    assert abs(dropped.mean() - 1) < 0.05


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_kept_grows_by_the_share_that_is_dropped(dtype):
    x = jax.random.normal(jax.random.key(1), (40, 50)).astype(dtype)

    def drop(x):
        return Dropout(0.1).apply({}, x, rngs={"dropout": jax.random.key(0)})

    dropped, backward = jax.vjp(drop, x)
    assert dropped.dtype == x.dtype
    kept = np.asarray(dropped) != 0
    scale = 256 / 230  # its mean over masks is 1: 230 of 256 byte values keep an element
    np.testing.assert_allclose(dropped.astype(np.float32), np.where(kept, x * scale, 0).astype(np.float32), rtol=1e-2)
    (gradient,) = backward(jnp.ones_like(x))
    np.testing.assert_allclose(gradient.astype(np.float32), np.where(kept, scale, 0), rtol=1e-2)


def test_nothing_of_the_shape_of_a_mask_is_constant():
    x = jnp.ones((16, 3))
    program = jax.jit(lambda x: Dropout(0.1).apply({}, x, rngs={"dropout": jax.random.key(0)})).lower(x).as_text()
    # JAX would take the condition or the zeros of a `where` out of a scan, and they would lie in memory.
    selects = [line for line in program.splitlines() if "stablehlo.select" in line]
    assert not [line for line in selects if "16x3" in line or "2x8x3" in line]


def test_bits_of_the_mask_alone_are_kept_for_the_backward_pass():
    _, backward = jax.vjp(lambda x: Dropout(0.1).apply({}, x, rngs={"dropout": jax.random.key(0)}), jnp.ones((16, 3)))
    assert {leaf.dtype for leaf in jax.tree.leaves(backward) if leaf.shape == (16, 3)} == {jnp.dtype(bool)}
