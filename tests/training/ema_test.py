import jax.numpy as jnp
import numpy as np
import pytest

from transdiff_jax.training.ema import relative_distance, update_ema


def test_several_rates_at_once():
    params, averages = {"w": jnp.full(3, 2.0)}, ({"w": jnp.zeros(3)}, {"w": jnp.ones(3)})
    slow, fast = update_ema(averages, params, (0.9, 0.5))
    np.testing.assert_allclose(slow["w"], 0.2, rtol=1e-6)
    np.testing.assert_allclose(fast["w"], 1.5, rtol=1e-6)


def test_a_slow_average_still_moves_in_float32():
    average = ({"w": jnp.ones(())},)
    for _ in range(100):
        average = update_ema(average, {"w": jnp.full((), 1.01)}, (0.9999,))
    np.testing.assert_allclose(average[0]["w"] - 1, 0.01 * (1 - 0.9999**100), rtol=0.1)


def test_rates_and_averages_must_match():
    with pytest.raises(ValueError, match="1 averages for 2 rates"):
        update_ema(({},), {}, (0.9, 0.5))


def test_relative_distance():
    average, params = {"a": jnp.array([3.0]), "b": jnp.array([0.0])}, {"a": jnp.array([0.0]), "b": jnp.array([4.0])}
    np.testing.assert_allclose(relative_distance(average, params), 5 / 4, rtol=1e-6)
