"""Any number of rows in batches of one static shape, so that a jitted function compiles once."""

from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from transdiff_jax.parallel.arrays import from_whole


def padded_batches(count: int, size: int) -> Iterator[np.ndarray]:
    """Row numbers [size] of each batch in turn, int32; the last batch is filled up with the last row."""
    for first in range(0, count, size):
        yield np.minimum(np.arange(first, first + size, dtype=np.int32), count - 1)


def map_rows(
    function: Callable[[Mapping[str, jax.Array]], jax.Array], rows: Mapping[str, np.ndarray], size: int, mesh: Mesh
) -> np.ndarray:
    """A function of rows, a batch at a time.

    Args:
        function: from arrays [size, ...] by name, sharded over the mesh, to [size, ...], which every process holds
            whole; each row of the result comes from the same row of its arguments alone.
        rows: [n, ...] by name, the same in every process; n is at least 1.
        size: rows of a batch; the mesh splits it evenly.
        mesh: the devices.

    Returns:
        [n, ...].
    """
    (count,) = {len(values) for values in rows.values()}
    made = [
        np.asarray(function(from_whole({name: values[batch] for name, values in rows.items()}, mesh)))
        for batch in padded_batches(count, size)
    ]
    return np.concatenate(made)[:count]
