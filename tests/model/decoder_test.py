import functools

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
from transdiff_jax.nn.attention import GuidedPair, KeysValues

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


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("conditions", [1, 2, 4])
def test_velocity_at_one_time_is_that_of_rows_alone(guided, conditions):
    params, module = random_params(MODEL), VelocityDecoder(MODEL)
    variables = {"params": params["decoder"]}
    x, t = jax.random.normal(jax.random.key(2), (4, 16, 4)), jnp.array([520.0])
    # There are four rows, and each of the `conditions` features serves equally many of them.
    own, null = jax.random.normal(jax.random.key(3), (4, 16, 16)), jax.random.normal(jax.random.key(4), (4, 16, 16))
    null = null[:conditions]

    @jax.jit
    def made():
        time = module.apply(variables, t, method=VelocityDecoder.embed_times)
        ours, shared = (module.apply(variables, features, method=VelocityDecoder.condition) for features in (own, null))
        return module.apply(
            variables, x, time, GuidedPair(ours, shared) if guided else shared, method=VelocityDecoder.velocity_at
        )

    shared = jnp.repeat(null, 4 // conditions, axis=0)
    expected = [
        velocity(params, x[:, None], jnp.full((4, 1), 520.0), features)[:, 0]
        for features in ((own, shared) if guided else (shared,))
    ]
    np.testing.assert_allclose(made(), jnp.stack(expected, axis=1).reshape(-1, 16, 4), rtol=1e-4, atol=1e-5)


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
