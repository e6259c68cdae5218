"""Exponential moving averages of the parameters, several rates at once, in float32."""

from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def update_ema(ema: tuple[Any, ...], params: Any, rates: tuple[float, ...]) -> tuple[Any, ...]:
    """rate * average + (1 - rate) * params, for each average and its rate."""
    if len(ema) != len(rates):
        raise ValueError(f"{len(ema)} averages for {len(rates)} rates")

    def blend(rate: float, average: Any) -> Any:
        return jax.tree.map(lambda a, p: rate * a + (1 - rate) * p, average, params)

    return tuple(blend(rate, average) for rate, average in zip(rates, ema, strict=True))


def relative_distance(average: Any, params: Any) -> Array:
    """|average - params| / |params| over all parameters, a scalar: how far the average lags."""

    def norm(tree: Any) -> Array:
        return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))

    return norm(jax.tree.map(jnp.subtract, average, params)) / norm(params)
