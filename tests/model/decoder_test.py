import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import literal
from tests.support.annotations import unchecked
from tests.support.configs import tiny_config
from tests.support.parameters import fresh_params, random_params
from transdiff_jax.model.decoder import VelocityDecoder
from transdiff_jax.model.loss import visible_features
from transdiff_jax.nn.attention import KeysValues
from transdiff_jax.nn.stack import unstack

MODEL = tiny_config(mrar=True).model
X = jax.random.normal(jax.random.key(0), (2, 3, 16, 4))
TIMESTEPS = jnp.array([[0.0, 1.0, 40.0], [250.0, 700.5, 999.0]])
FEATURES = jax.random.normal(jax.random.key(1), (2, 16, 16))


@functools.partial(jax.jit, static_argnames=("model", "visible"))
def velocity(params, x, timesteps, features, visible=None, model=MODEL):
    variables, module = {"params": params["decoder"]}, VelocityDecoder(model)
    keys_values = module.apply(variables, features, method=VelocityDecoder.condition)
    mask = None if visible is None else np.array(visible)
    return module.apply(variables, x, timesteps, keys_values, mask)


def test_literal():
    params = random_params(MODEL)
    made = velocity(params, X, TIMESTEPS, FEATURES)
    assert made.shape == X.shape
    assert made.dtype == jnp.float32
    p, features = literal.to_numpy(params["decoder"]), np.asarray(FEATURES, np.float64)
    for k in range(3):
        x, t = np.asarray(X[:, k], np.float64), np.asarray(TIMESTEPS[:, k], np.float64)
        np.testing.assert_allclose(made[:, k], literal.velocity(p, MODEL, x, t, features), rtol=2e-3, atol=2e-3)


def test_inputs_of_one_condition_do_not_meet():
    params = random_params(MODEL)
    together = velocity(params, X, TIMESTEPS, FEATURES)
    for row in range(2):
        for k in range(3):
            one = velocity(
                params, X[row : row + 1, k : k + 1], TIMESTEPS[row : row + 1, k : k + 1], FEATURES[row][None]
            )
            np.testing.assert_allclose(one[0, 0], together[row, k], rtol=1e-4, atol=1e-5)


def velocity_at(params, x, features, model=MODEL):
    module, t = VelocityDecoder(model), jnp.array([520.0])

    def apply(params, method, *arguments):
        return module.apply({"params": params}, *arguments, method=method)

    time = apply(params["decoder"], VelocityDecoder.embed_times, t)
    keys_values = apply(params["decoder"], VelocityDecoder.condition, features)
    step = apply(params["decoder"], VelocityDecoder.step_weights)
    return apply(step, VelocityDecoder.velocity_at, x, time, unstack(keys_values))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("guided", [False, True])
def test_velocity_at_one_time_is_that_of_rows_alone(guided, dtype):
    params, model = random_params(MODEL), dataclasses.replace(MODEL, dtype=dtype)
    x, features = jax.random.normal(jax.random.key(2), (4, 16, 4)), jax.random.normal(jax.random.key(3), (8, 16, 16))
    features = features if guided else features[:4]
    made = jax.jit(lambda: velocity_at(params, x, features, model))()
    rows = jnp.repeat(x, 2, axis=0) if guided else x
    expected = velocity(params, rows[:, None], jnp.full((len(rows), 1), 520.0), features, model=model)[:, 0]
    # In bfloat16 both round alike, because they cast the same weights.
    rtol, atol = (1e-4, 1e-5) if dtype == "float32" else (1e-2, 1e-2)
    np.testing.assert_allclose(made, expected, rtol=rtol, atol=atol)


def test_halves_of_a_pair_share_what_comes_before_their_conditions():
    x, features = jnp.zeros((4, 16, 4)), jnp.zeros((8, 16, 16))
    program = jax.jit(lambda params: velocity_at(params, x, features)).lower(random_params(MODEL)).as_text()
    # In block 0: the projection of x, queries, keys, values and the output of self-attention, and the queries of
    # cross-attention. Then two more products of the same width in block 0, seven in block 1, and one of the features.
    assert len(re.findall(r"dot_general.*-> tensor<64x16xf32>", program)) == 6, "4 rows of 16 tokens"
    assert len(re.findall(r"dot_general.*-> tensor<128x16xf32>", program)) == 10, "8 rows of 16 tokens"


def test_visible_mask_is_a_prefix_of_the_features():
    params = random_params(MODEL)
    # Inputs 0, 1 and 2 see one, three and four groups of four tokens.
    visible = tuple(tuple(token < 4 * groups for token in range(16)) for groups in (1, 3, 4))
    together = velocity(params, X, TIMESTEPS, FEATURES, visible)
    for k, groups in enumerate((1, 3, 4)):
        one = velocity(params, X[:, k : k + 1], TIMESTEPS[:, k : k + 1], FEATURES[:, : 4 * groups])
        np.testing.assert_allclose(one[:, 0], together[:, k], rtol=1e-4, atol=1e-5)
    assert np.abs(together - velocity(params, X, TIMESTEPS, FEATURES)).max(axis=(0, 2, 3))[0] > 1e-2


def test_visible_features_literal():
    expected = [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0], [1] * 6, [1] * 6]
    model = tiny_config(mrar=True).model
    small = type(model)(num_images=3, tokens_per_image=2)
    np.testing.assert_array_equal(visible_features(small, 2), np.array(expected, bool))
    assert visible_features(tiny_config().model, 2) is None


def test_fresh_decoder_says_zero():
    np.testing.assert_array_equal(velocity(fresh_params(MODEL), X, TIMESTEPS, FEATURES), 0)


def test_keys_and_values_are_those_of_every_block():
    module, params = VelocityDecoder(MODEL), random_params(MODEL)
    keys_values = module.apply({"params": params["decoder"]}, FEATURES, method=VelocityDecoder.condition)
    assert keys_values.key.shape == keys_values.value.shape == (2, 2, 16, 2, 8)
    p = literal.to_numpy(params["decoder"])
    condition = literal.linear(p["condition_projection"], np.asarray(FEATURES, np.float64))
    for block in range(2):
        expected = literal.layer(p["keys_values"], block)
        np.testing.assert_allclose(keys_values.key[block], literal.linear(expected["key"], condition), atol=1e-4)
        np.testing.assert_allclose(keys_values.value[block], literal.linear(expected["value"], condition), atol=1e-4)


def keys_values(blocks=2, conditions=2, tokens=16):
    zeros = jnp.zeros((blocks, conditions, tokens, 2, 8))
    return KeysValues(zeros, zeros)


@pytest.mark.parametrize(
    ("x", "timesteps", "condition", "visible", "fragment"),
    [
        (X[:, 0], TIMESTEPS, keys_values(), None, r"x_t must be \[b, r, 16, 4\], got \(2, 16, 4\)"),
        (X[:, :, :9], TIMESTEPS, keys_values(), None, r"x_t must be \[b, r, 16, 4\], got \(2, 3, 9, 4\)"),
        (X, TIMESTEPS.T, keys_values(), None, r"timesteps must be \(2, 3\) like x_t .* got \(3, 2\)"),
        (X, TIMESTEPS, keys_values(conditions=4), None, r"of 2 blocks and 2 conditions like x_t .* got \(2, 4, 16"),
        (X, TIMESTEPS, keys_values(conditions=1), None, "of 2 blocks and 2 conditions like x_t"),
        (X, TIMESTEPS, keys_values(blocks=3), None, r"got \(3, 2, 16"),
        (X, TIMESTEPS, keys_values(), np.ones((3, 8), bool), r"visible must be \(3, 16\), got \(3, 8\)"),
        (X, TIMESTEPS, keys_values(), np.ones((6, 16), bool), r"visible must be \(3, 16\), got \(6, 16\)"),
    ],
)
def test_shapes_that_do_not_fit(x, timesteps, condition, visible, fragment):
    with unchecked(), pytest.raises(ValueError, match=fragment):
        VelocityDecoder(MODEL).apply({"params": random_params(MODEL)["decoder"]}, x, timesteps, condition, visible)
