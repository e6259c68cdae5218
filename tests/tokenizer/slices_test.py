import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transdiff_jax.tokenizer.slices import map_slices


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 7, 100])
def test_every_slice_size_gives_the_same(size):
    rows = jnp.arange(7 * 6.0).reshape(7, 2, 3)
    largest = []

    def function(part):
        largest.append(len(part))
        return jnp.sum(part, axis=2) ** 2

    np.testing.assert_array_equal(map_slices(function, rows, size), function(rows))
    assert largest[0] <= size


def test_memory_follows_the_slice_not_the_batch():
    def temporary_bytes(size):
        def function(part):
            wide = jnp.broadcast_to(part[:, :, None], (len(part), 64, 512))
            return jnp.sum(jnp.sort(wide * part[:, None, :1], axis=2), axis=2)

        compiled = jax.jit(lambda rows: map_slices(function, rows, size)).lower(jnp.zeros((32, 64))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(4) < temporary_bytes(32) / 4
