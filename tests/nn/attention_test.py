import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import literal
from tests.support.parameters import perturb
from transdiff_jax.nn.attention import (
    CrossAttention,
    CrossKeysValues,
    KeysValues,
    SelfAttention,
    attend,
    attend_rows,
    block_causal_mask,
)
from transdiff_jax.nn.dropout import Dropout

MASK = np.array([[1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]], bool)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_block_causal_mask_literal():
    mask = block_causal_mask((1, 2, 2))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, MASK)


def test_mask_of_one_block_is_full_and_of_single_tokens_is_causal():
    assert block_causal_mask((3,)).all()
    np.testing.assert_array_equal(block_causal_mask((1, 1, 1)), np.tril(np.ones((3, 3))))


@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "masked"])
def test_attend_is_softmax_attention_per_head(mask):
    query, key, value = normal(0, 2, 5, 3, 4), normal(1, 2, 5, 3, 4), normal(2, 2, 5, 3, 4)
    made = attend(query, KeysValues(key, value), mask)
    rows = zip(*(np.asarray(x, np.float64) for x in (query, key, value)), strict=True)
    expected = np.stack([literal.attend(*row, mask) for row in rows])
    assert made.shape == (2, 5, 3, 4)
    np.testing.assert_allclose(made.reshape(2, 5, 12), expected, rtol=1e-5, atol=1e-6)


def test_masked_tokens_do_not_enter_at_all():
    query, key, value = normal(0, 1, 5, 1, 4), normal(1, 1, 5, 1, 4), normal(2, 1, 5, 1, 4)
    made = attend(query, KeysValues(key, value), MASK)
    changed = attend(query, KeysValues(key.at[:, 3:].set(50.0), value.at[:, 3:].set(-50.0)), MASK)
    np.testing.assert_array_equal(made[:, :3], changed[:, :3])
    assert not np.allclose(made[:, 3:], changed[:, 3:])


def test_rows_of_a_condition_attend_like_each_alone():
    query, key, value = normal(0, 6, 5, 3, 4), normal(1, 2, 7, 3, 4), normal(2, 2, 7, 3, 4)
    made = attend_rows(query, KeysValues(key, value))
    alone = attend(query, KeysValues(jnp.repeat(key, 3, axis=0), jnp.repeat(value, 3, axis=0)))
    np.testing.assert_allclose(made, alone, rtol=1e-5, atol=1e-6)


def test_self_attention_extended_is_the_whole():
    x, module = normal(0, 2, 5, 6), SelfAttention(3, 0.0, 0.0, jnp.float32)
    params = {"params": perturb(module.init(jax.random.key(1), x)["params"])}
    nothing = KeysValues(jnp.zeros((2, 0, 3, 2)), jnp.zeros((2, 0, 3, 2)))
    first, cache = module.apply(params, x[:, :3], nothing, MASK[:3, :3], method=SelfAttention.extend)
    second, cache = module.apply(params, x[:, 3:], cache, method=SelfAttention.extend)
    assert cache.key.shape == cache.value.shape == (2, 5, 3, 2)
    whole = module.apply(params, x, MASK)
    np.testing.assert_allclose(jnp.concatenate([first, second], axis=1), whole, rtol=1e-5, atol=1e-6)


def test_softmax_is_float32_under_bfloat16():
    # 300 equal keys: bfloat16 cannot sum 300 ones.
    query, key = jnp.zeros((1, 1, 1, 4), jnp.bfloat16), jnp.zeros((1, 300, 1, 4), jnp.bfloat16)
    seen = []

    def drop(weights):
        seen.append(weights)
        return weights

    made = attend(query, KeysValues(key, jnp.ones_like(key)), drop=drop)
    assert made.dtype == seen[0].dtype == jnp.bfloat16
    assert seen[0].shape == (1, 1, 1, 300)
    np.testing.assert_array_equal(made, jnp.ones_like(made))


def test_logits_are_float32_under_bfloat16():
    # Logits 100 and 100.25: one number in bfloat16.
    query = jnp.full((1, 1, 1, 4), 2, jnp.bfloat16)
    key = jnp.array([[64, 32, 4, 0], [64, 32, 4, 0.25]], jnp.bfloat16).reshape(1, 2, 1, 4)
    value = jnp.array([[1, 0, 0, 0], [0, 1, 0, 0]], jnp.bfloat16).reshape(1, 2, 1, 4)
    made = attend(query, KeysValues(key, value))[0, 0, 0]
    np.testing.assert_allclose(made[:2].astype(jnp.float32), [0.4378, 0.5622], atol=0.004)


def test_self_attention_literal():
    x = normal(0, 2, 5, 6)
    module = SelfAttention(3, 0.0, 0.0, jnp.float32)
    params = perturb(module.init(jax.random.key(1), x)["params"])
    for mask in (None, MASK):
        expected = literal.self_attention(literal.to_numpy(params), np.asarray(x, np.float64), mask)
        np.testing.assert_allclose(module.apply({"params": params}, x, mask), expected, rtol=1e-4, atol=1e-5)


def test_cross_attention_literal():
    x, condition = normal(0, 2, 5, 6), normal(1, 2, 7, 6)
    side, module = CrossKeysValues(3, jnp.float32), CrossAttention(3, 0.0, 0.0, jnp.float32)
    side_params = perturb(side.init(jax.random.key(1), condition)["params"])
    keys_values = side.apply({"params": side_params}, condition)
    assert keys_values.key.shape == keys_values.value.shape == (2, 7, 3, 2)
    params = perturb(module.init(jax.random.key(2), x, keys_values)["params"], seed=3)
    expected = literal.cross_attention(
        literal.to_numpy(params),
        literal.to_numpy(side_params),
        np.asarray(x, np.float64),
        np.asarray(condition, np.float64),
    )
    np.testing.assert_allclose(module.apply({"params": params}, x, keys_values), expected, rtol=1e-4, atol=1e-5)


def test_cross_attention_mask_hides_tokens():
    x, keys, values = normal(0, 1, 2, 6), normal(1, 1, 4, 3, 2), normal(2, 1, 4, 3, 2)
    module = CrossAttention(3, 0.0, 0.0, jnp.float32)
    params = module.init(jax.random.key(0), x, KeysValues(keys, values))
    masked = module.apply(params, x, KeysValues(keys, values), np.array([[1, 1, 0, 0], [1, 1, 1, 1]], bool))
    prefix = module.apply(params, x, KeysValues(keys[:, :2], values[:, :2]))
    whole = module.apply(params, x, KeysValues(keys, values))
    np.testing.assert_allclose(masked[:, 0], prefix[:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(masked[:, 1], whole[:, 1], rtol=1e-5, atol=1e-6)
    assert not np.allclose(prefix, whole)


@pytest.mark.parametrize("cross", [False, True], ids=["self", "cross"])
def test_dropout_is_on_weights_and_output(cross):
    x = normal(0, 4, 16, 32)
    if cross:
        keys_values = KeysValues(normal(1, 4, 16, 2, 16), normal(2, 4, 16, 2, 16))
        module, inputs = CrossAttention(2, 0.5, 0.25, jnp.float32), (x, keys_values)
    else:
        module, inputs = SelfAttention(2, 0.5, 0.25, jnp.float32), (x,)
    params = module.init(jax.random.key(0), *inputs)
    made, state = module.apply(
        params,
        *inputs,
        rngs={"dropout": jax.random.key(1)},
        capture_intermediates=lambda module, _: isinstance(module, Dropout),
    )
    dropped = {values["__call__"][0].shape: values["__call__"][0] for values in state["intermediates"].values()}
    assert len(dropped) == 2
    for shape, rate in [((4, 2, 16, 16), 0.5), ((4, 16, 32), 0.25)]:
        assert abs(np.mean(np.asarray(dropped[shape]) == 0) - rate) < 0.05
    without = module.apply(params, *inputs)
    assert not np.allclose(made, without)
    silent = module.clone(weight_dropout=0.0, dropout=0.0).apply(params, *inputs, rngs={"dropout": jax.random.key(1)})
    np.testing.assert_array_equal(without, silent)


def test_parameter_shapes():
    x = normal(0, 1, 2, 6)
    shapes = jax.tree.map(
        jnp.shape, nn.unbox(SelfAttention(3, 0.0, 0.0, jnp.float32).init(jax.random.key(0), x)["params"])
    )
    assert shapes == {
        "qkv": {"kernel": (6, 3, 3, 2), "bias": (3, 3, 2)},
        "output": {"kernel": (3, 2, 6), "bias": (6,)},
    }


@pytest.fixture
def cudnn(monkeypatch):
    """Puts XLA in place of cuDNN, and records the requests to cuDNN."""
    asked, xla = [], jax.nn.dot_product_attention

    def attention(query, key, value, *, mask, implementation):
        asked.append((implementation, query.shape, key.shape, None if mask is None else mask.shape))
        return xla(query, key, value, mask=mask, implementation="xla")

    monkeypatch.setattr(jax.nn, "dot_product_attention", attention)
    return asked


@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "masked"])
def test_cudnn_is_asked_for_by_name(cudnn, mask):
    x = normal(0, 2, 5, 6)
    module = SelfAttention(3, 0.0, 0.0, jnp.float32)
    params = module.init(jax.random.key(0), x)
    expected = module.apply(params, x, mask)
    assert cudnn == []
    made = module.clone(implementation="cudnn").apply(params, x, mask)
    assert cudnn == [("cudnn", (2, 5, 3, 2), (2, 5, 3, 2), None if mask is None else (1, 1, 5, 5))]
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)


def test_cudnn_takes_rows_of_a_condition_as_one_query(cudnn):
    x, keys_values = normal(0, 6, 5, 6), KeysValues(normal(1, 2, 7, 3, 2), normal(2, 2, 7, 3, 2))
    module = CrossAttention(3, 0.0, 0.0, jnp.float32)
    params = module.init(jax.random.key(0), x, keys_values)
    made = module.clone(implementation="cudnn").apply(params, x[:4], keys_values)
    np.testing.assert_allclose(made, module.apply(params, x[:4], keys_values), rtol=1e-5, atol=1e-6)
    assert [entry[1:3] for entry in cudnn] == [((2, 10, 3, 2), (2, 7, 3, 2))]


def test_a_row_attends_to_each_of_its_conditions():
    x, keys_values = normal(0, 2, 5, 6), KeysValues(normal(1, 4, 7, 3, 2), normal(2, 4, 7, 3, 2))
    module = CrossAttention(3, 0.0, 0.0, jnp.float32)
    params = module.init(jax.random.key(0), x, keys_values)
    made = module.apply(params, x, keys_values)
    expected = module.apply(params, jnp.repeat(x, 2, axis=0), keys_values)
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)
