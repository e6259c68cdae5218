"""Applying a function to a batch slice by slice, so that the slice bounds the memory, not the batch."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Shaped

from transdiff_jax.parallel import axes


def map_slices(
    function: Callable[[Shaped[Array, "m ..."]], Shaped[Array, "m ..."]], rows: Shaped[Array, "n ..."], size: int
) -> Shaped[Array, "n ..."]:
    """Applies `function` to at most `size` rows of each device at a time.

    The mesh that this is traced over splits the rows into equal runs, each on its own devices. A slice takes some rows
    of every run, and no row moves.

    Args:
        function: makes each row of its output from the same row of its input alone.
        rows: the batch.
        size: most rows of one slice in each run.

    Returns:
        The same as `function(rows)`, whatever `size` and the mesh.

    Raises:
        ValueError: the rows do not split into equal runs.
    """
    runs, (count, *rest) = axes.row_shards(), rows.shape
    if count % runs:
        raise ValueError(f"{count} rows do not split into {runs} equal runs")
    held = count // runs
    slices = math.ceil(held / size)
    if slices <= 1:
        return function(rows)
    length = math.ceil(held / slices)
    padded = jnp.pad(rows.reshape(runs, held, *rest), [(0, 0), (0, slices * length - held)] + [(0, 0)] * len(rest))
    parts = padded.reshape(runs, slices, length, *rest).swapaxes(0, 1)
    mapped = jax.lax.map(function, parts.reshape(slices, runs * length, *rest))
    out = mapped.shape[2:]
    mapped = mapped.reshape(slices, runs, length, *out).swapaxes(0, 1)
    return mapped.reshape(runs, slices * length, *out)[:, :held].reshape(count, *out)
