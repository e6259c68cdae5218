"""A function of a batch, a slice at a time: memory bounded by the slice instead of the batch."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from transdiff_jax.parallel import axes

Array = jax.Array


def map_slices(function: Callable[[Array], Array], rows: Array, size: int) -> Array:
    """`function` over at most `size` rows of each shard at a time.

    Shards are the equal runs of rows of the mesh that the function is traced over, each on devices of its own: a slice
    is made of a part of each, and no row moves.

    Args:
        function: [m, ...] -> [m, ...], each row of the output from the same row of the input alone.
        rows: [n, ...].
        size: most rows of one slice, of each shard.

    Returns:
        The same as `function(rows)`, whatever `size` and the mesh.

    Raises:
        ValueError: the rows do not divide into so many shards.
    """
    shards, (count, *rest) = axes.row_shards(), rows.shape
    if count % shards:
        raise ValueError(f"{count} rows do not divide into {shards} shards")
    held = count // shards
    slices = math.ceil(held / size)
    if slices <= 1:
        return function(rows)
    length = math.ceil(held / slices)
    padded = jnp.pad(rows.reshape(shards, held, *rest), [(0, 0), (0, slices * length - held)] + [(0, 0)] * len(rest))
    parts = padded.reshape(shards, slices, length, *rest).swapaxes(0, 1)
    mapped = jax.lax.map(function, parts.reshape(slices, shards * length, *rest))
    out = mapped.shape[2:]
    mapped = mapped.reshape(slices, shards, length, *out).swapaxes(0, 1)
    return mapped.reshape(shards, slices * length, *out)[:, :held].reshape(count, *out)
