import jax
import numpy as np
import pytest

from transdiff_jax.config import MeshConfig
from transdiff_jax.parallel.arrays import batch_sharding, replicated
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.parallel.row_batches import map_rows, padded_batches


def test_the_last_batch_is_filled_with_the_last_row():
    assert [batch.tolist() for batch in padded_batches(5, 2)] == [[0, 1], [2, 3], [4, 4]]
    assert [batch.tolist() for batch in padded_batches(1, 3)] == [[0, 0, 0]]
    assert list(padded_batches(0, 3)) == []


@pytest.mark.parametrize("count", [1, 8, 13, 24])
def test_rows_in_batches_are_rows_at_once(count):
    mesh, shapes = make_mesh(MeshConfig(fsdp=2)), []
    rows = {"a": np.arange(2.0 * count).reshape(count, 2), "b": np.arange(count)}

    @jax.jit
    def jitted(rows):
        shapes.append(rows["a"].shape)
        return jax.lax.with_sharding_constraint(rows["a"] * rows["b"][:, None], replicated(mesh))

    def function(rows):
        assert rows["b"].sharding == batch_sharding(mesh)
        return jitted(rows)

    np.testing.assert_array_equal(map_rows(function, rows, 8, mesh), rows["a"] * rows["b"][:, None])
    assert shapes == [(8, 2)], "compiled once"


def test_rows_that_do_not_belong_together():
    with pytest.raises(ValueError, match="too many values"):
        map_rows(lambda rows: rows["a"], {"a": np.zeros(3), "b": np.zeros(4)}, 8, make_mesh(MeshConfig()))
