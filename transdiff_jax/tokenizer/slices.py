"""A function of a batch, a slice at a time: memory bounded by the slice instead of the batch."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array


def map_slices(function: Callable[[Array], Array], rows: Array, size: int) -> Array:
    """`function` over at most `size` rows at a time.

    Args:
        function: [m, ...] -> [m, ...], each row of the output from the same row of the input alone.
        rows: [n, ...].
        size: most rows of one slice.

    Returns:
        The same as `function(rows)`, whatever `size`.
    """
    count, *rest = rows.shape
    slices = math.ceil(count / size)
    if slices <= 1:
        return function(rows)
    length = math.ceil(count / slices)
    padded = jnp.pad(rows, [(0, slices * length - count)] + [(0, 0)] * len(rest))
    # A slice takes every slices-th row, not neighbours: of a batch sharded over its rows each device then has its
    # share of every slice, and no row moves.
    mapped = jax.lax.map(function, padded.reshape(length, slices, *rest).swapaxes(0, 1)).swapaxes(0, 1)
    return mapped.reshape(slices * length, *mapped.shape[2:])[:count]
