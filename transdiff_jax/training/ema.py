"""Exponential moving averages of the parameters, several rates at once, in float32."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from transdiff_jax.model.params import Params


def warm_rates(rates: tuple[float, ...], updates: Int[Array, ""]) -> tuple[Float[Array, ""], ...]:
    """Rates of at most (1 + n) / (10 + n) after n updates, so that a short run's average leaves its start behind."""
    n = updates.astype(jnp.float32)
    return tuple(jnp.minimum(rate, (1 + n) / (10 + n)) for rate in rates)


def update_ema(
    ema: tuple[Params, ...], params: Params, rates: tuple[float | Float[Array, ""], ...]
) -> tuple[Params, ...]:
    """rate * average + (1 - rate) * params, for each average and its rate.

    Raises:
        ValueError: the numbers of averages and rates differ.
    """
    if len(ema) != len(rates):
        raise ValueError(f"{len(ema)} averages for {len(rates)} rates")

    def blend(rate: float | Float[Array, ""], average: Params) -> Params:
        return jax.tree.map(lambda a, p: rate * a + (1 - rate) * p, average, params)

    return tuple(blend(rate, average) for rate, average in zip(rates, ema, strict=True))


def relative_distance(average: Params, params: Params) -> Float[Array, ""]:
    """How far the average lags: |average - params| / |params| over all parameters."""

    def norm(tree: Params) -> Float[Array, ""]:
        return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))

    return norm(jax.tree.map(jnp.subtract, average, params)) / norm(params)
