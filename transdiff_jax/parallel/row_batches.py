"""Splits any number of rows into batches of one static shape, so that a jitted function compiles once."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Int, Shaped

from transdiff_jax.parallel.arrays import from_whole


def padded_batches(count: int, size: int) -> Iterator[Int[np.ndarray, " size"]]:
    """Yields the row numbers of each batch, as int32; the last row fills up the last batch."""
    for first in range(0, count, size):
        yield np.minimum(np.arange(first, first + size, dtype=np.int32), count - 1)


def map_rows(
    function: Callable[[Mapping[str, Shaped[Array, "size ..."]]], Shaped[Array, "size ..."]],
    rows: Mapping[str, Shaped[np.ndarray, "n ..."]],
    size: int,
    mesh: Mesh,
) -> Shaped[np.ndarray, "n ..."]:
    """Applies a function to rows, a batch at a time.

    Args:
        function: takes arrays by name, sharded over the mesh, and returns an array that every process holds whole. Each
            row of the result depends on the same row of the arguments alone.
        rows: arrays by name, the same in every process; at least one row.
        size: rows of a batch; the mesh must split it evenly.
        mesh: the devices.
    """
    (count,) = {len(values) for values in rows.values()}
    made = [
        np.asarray(function(from_whole({name: values[batch] for name, values in rows.items()}, mesh)))
        for batch in padded_batches(count, size)
    ]
    return np.concatenate(made)[:count]
