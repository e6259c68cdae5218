import jax.numpy as jnp
import numpy as np
import pytest

from transdiff_jax.config import SamplingConfig
from transdiff_jax.flow.guidance import guidance_weights, guide, interleave, is_guided
from transdiff_jax.flow.path import sde_drift


@pytest.mark.parametrize(("weight", "guided"), [(0.5, False), (1.0, False), (1.001, True), (3.0, True)])
def test_one_rule_for_when_guidance_is_on(weight, guided):
    assert is_guided(weight) is guided


TIMES = np.array([1.0, 0.75, 0.5, 0.25, 0.0], np.float32)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [3, 3, 3, 3, 3]),
        ({"guidance_interval": (0.25, 0.5)}, [1, 1, 3, 3, 1]),
        ({"guidance_interval": (0.3, 0.3)}, [1, 1, 1, 1, 1]),
        ({"guidance_schedule": "linear"}, [1, 1.5, 2, 2.5, 3]),
        # 1 - cos: 0, (1 - sqrt(1/2)) / 2, 1/2, (1 + sqrt(1/2)) / 2, 1; twice that, plus 1.
        ({"guidance_schedule": "power_cosine", "guidance_power": 1.0}, [1, 1.292893, 2, 2.707107, 3]),
        # Of the square: angles pi/16, pi/4, 9 pi/16.
        ({"guidance_schedule": "power_cosine", "guidance_power": 2.0}, [1, 1.019215, 1.292893, 2.195090, 3]),
        ({"guidance_schedule": "linear", "guidance_interval": (0.0, 0.5)}, [1, 1, 2, 2.5, 3]),
    ],
)
def test_weights_by_time(settings, expected):
    weights = guidance_weights(SamplingConfig(guidance=(3.0,), **settings), TIMES)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_ends_of_the_interval_are_times_as_the_solver_has_them():
    # 0.7 is not a float32; the network's time and the setting are rounded alike.
    times = np.linspace(1, 0.1, 4).astype(np.float32)
    weights = guidance_weights(SamplingConfig(guidance=(2.0,), guidance_interval=(0.4, 0.7)), times)
    assert weights.tolist() == [1, 2, 2, 1]


def test_interleave_puts_pairs_side_by_side():
    rows = interleave(jnp.array([[1, 2], [3, 4]]), jnp.array([[5, 6], [7, 8]]))
    assert rows.tolist() == [[1, 2], [5, 6], [3, 4], [7, 8]]
    assert interleave(jnp.array([1, 2]), jnp.array([3, 4])).tolist() == [1, 3, 2, 4]


def test_interleave_takes_equal_shapes_only():
    with pytest.raises(ValueError, match=r"equal shapes, got \(2, 3\) and \(1, 3\)"):
        interleave(jnp.zeros((2, 3)), jnp.zeros((1, 3)))


def test_guided_velocity_literal():
    seen = []

    def velocity(x, t):
        seen.append((x[:, 0, 0].tolist(), t))
        # The conditional rows (even) and the unconditional ones (odd).
        return jnp.array([1.0, 2.0, 10.0, 30.0]).reshape(4, 1, 1)

    guided = guide(velocity, 1.5)(jnp.array([7.0, 8.0]).reshape(2, 1, 1), 0.25)
    assert seen == [([7.0, 8.0], 0.25)]
    # u + 1.5 (c - u): 2 - 1.5 and 30 - 30.
    assert guided[:, 0, 0].tolist() == [0.5, 0.0]


@pytest.mark.parametrize("weight", [1.3, 4.0])
@pytest.mark.parametrize("t", [0.04, 0.5, 1.0])
def test_guiding_the_velocity_is_guiding_the_drift(weight, t):
    generator = np.random.default_rng(0)
    x, c, u = (jnp.asarray(generator.standard_normal((3, 2, 4)), jnp.float32) for _ in range(3))
    guided = guide(lambda pairs, t: interleave(c, u), weight)(x, t)
    assert guided.shape == x.shape
    drifts = sde_drift(c, x, t), sde_drift(u, x, t)
    expected = drifts[1] + weight * (drifts[0] - drifts[1])
    np.testing.assert_allclose(sde_drift(guided, x, t), expected, rtol=1e-5, atol=1e-5)
