import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.meshes import over_shards
from transdiff_jax.benchmark.collectives import collectives
from transdiff_jax.benchmark.hlo import parse
from transdiff_jax.config import MeshConfig
from transdiff_jax.parallel import axes
from transdiff_jax.parallel.arrays import batch_sharding
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.tokenizer.slices import map_slices


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 7, 100])
def test_every_slice_size_gives_the_same(size, shards):
    rows = jnp.arange(28 * 6.0).reshape(28, 2, 3)
    largest = []

    def function(part):
        largest.append(len(part))
        return jnp.sum(part, axis=2) ** 2

    with over_shards(shards):
        sliced = map_slices(function, rows, size)
    np.testing.assert_array_equal(sliced, function(rows))
    assert largest[0] <= size * shards


def test_rows_that_do_not_divide():
    with over_shards(8), pytest.raises(ValueError, match="28 rows do not split into 8 equal runs"):
        map_slices(jnp.sin, jnp.ones(28), 1)


@pytest.mark.parametrize("held", [4, 5])  # rows of each device; slices of two divide 4 but not 5
def test_no_row_of_a_sharded_batch_moves(held):
    mesh = make_mesh(MeshConfig(fsdp=2))
    rows = batch_sharding(mesh)
    batch = jax.ShapeDtypeStruct((8 * held, 6, 6, 2), np.float32, sharding=rows)
    kernel = jnp.ones((3, 3, 2, 4))

    def function(part):
        return jax.lax.conv_general_dilated(part, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def sliced(rows):
        with axes.over(mesh):
            return map_slices(function, rows, 2)

    program = jax.jit(sliced, out_shardings=rows).lower(batch).compile()
    assert "while" in program.as_text()
    assert collectives(parse(program.as_text())) == []


def test_memory_follows_the_slice_not_the_batch():
    def temporary_bytes(size):
        def function(part):
            wide = jnp.broadcast_to(part[:, :, None], (len(part), 64, 512))
            return jnp.sum(jnp.sort(wide * part[:, None, :1], axis=2), axis=2)

        compiled = jax.jit(lambda rows: map_slices(function, rows, size)).lower(jnp.zeros((32, 64))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(4) < temporary_bytes(32) / 4
