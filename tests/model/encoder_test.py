import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import literal
from tests.support.annotations import unchecked
from tests.support.configs import tiny_config
from tests.support.parameters import random_params
from transdiff_jax.model.encoder import SemanticEncoder

LABELS = jnp.array([3, 0, 9])
NULL = jnp.array([False, True, False])
REFERENCES = jax.random.normal(jax.random.key(5), (3, 3, 4, 4, 4))
ONE_STEP, MRAR = tiny_config().model, tiny_config(mrar=True).model


@functools.partial(jax.jit, static_argnums=0)
def encode(model, params, labels, null, references=None):
    return SemanticEncoder(model).apply({"params": params["encoder"]}, labels, null, references)


@pytest.mark.parametrize(
    ("model", "count"),
    [(ONE_STEP, 0), (MRAR, 0), (MRAR, 1), (MRAR, 3)],
    ids=["one_step", "mrar_first", "mrar_second", "mrar_last"],
)
def test_literal(model, count):
    params = random_params(model)
    references = REFERENCES[:, :count] if count else None
    made = encode(model, params, LABELS, NULL, references)
    assert made.features.shape == (3, (count + 1) * model.tokens_per_image, 16)
    earlier = [np.asarray(REFERENCES[:, k], np.float64) for k in range(count)]
    expected = literal.encode(literal.to_numpy(params["encoder"]), model, LABELS, NULL, earlier)
    np.testing.assert_allclose(made.features, expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(made.encoded, expected[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_first_groups_do_not_depend_on_later_ones(count):
    params = random_params(MRAR)
    whole = encode(MRAR, params, LABELS, NULL, REFERENCES).features
    prefix = encode(MRAR, params, LABELS, NULL, REFERENCES[:, :count] if count else None).features
    changed = encode(MRAR, params, LABELS, NULL, REFERENCES.at[:, count:].add(10.0)).features
    tokens = prefix.shape[1]
    assert tokens == 4 * (count + 1)
    np.testing.assert_allclose(prefix, whole[:, :tokens], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(changed[:, :tokens], whole[:, :tokens])
    # Every token of a group sees the earlier image of its group, and so does every later token.
    assert (np.abs(changed - whole)[:, tokens:].max(axis=-1) > 1e-3).all()


def test_a_sequence_extended_group_by_group_is_the_whole():
    params, module = random_params(MRAR), SemanticEncoder(MRAR)
    variables = {"params": params["encoder"]}
    whole = encode(MRAR, params, LABELS, NULL, REFERENCES).features
    prefix = module.apply(variables, LABELS, NULL, method=SemanticEncoder.start)
    groups = [prefix.features]
    for count in range(3):
        assert prefix.cache.key.shape == prefix.cache.value.shape == (2, 3, 3 + 4 * (count + 1), 2, 8)
        prefix = module.apply(variables, REFERENCES[:, count], prefix.cache, method=SemanticEncoder.extend)
        groups.append(prefix.features)
    assert [group.shape for group in groups] == [(3, 4, 16)] * 4
    np.testing.assert_allclose(jnp.concatenate(groups, axis=1), whole, rtol=1e-5, atol=1e-5)


def test_one_image_needs_no_cache():
    params = random_params(ONE_STEP)
    prefix = SemanticEncoder(ONE_STEP).apply({"params": params["encoder"]}, LABELS, NULL, method=SemanticEncoder.start)
    assert prefix.cache is None
    np.testing.assert_allclose(prefix.features, encode(ONE_STEP, params, LABELS, NULL).features, rtol=1e-5, atol=1e-5)


def test_tokens_of_one_image_see_each_other():
    params = random_params(ONE_STEP)
    features = encode(ONE_STEP, params, LABELS, NULL).features
    positions = params["encoder"]["position_embedding"]
    moved = {"encoder": params["encoder"] | {"position_embedding": positions.at[-1, 0].add(1.0)}}
    changed = encode(ONE_STEP, moved, LABELS, NULL).features
    assert (np.abs(changed - features).max(axis=-1) > 1e-4).all()


def test_null_class_takes_the_place_of_any_label():
    params = random_params(MRAR)
    dropped = jnp.ones(3, bool)
    one = encode(MRAR, params, LABELS, dropped, REFERENCES).features
    other = encode(MRAR, params, LABELS[::-1], dropped, REFERENCES).features
    np.testing.assert_array_equal(one, other)
    kept = encode(MRAR, params, LABELS, ~dropped, REFERENCES).features
    assert (np.abs(kept - one).max(axis=-1) > 1e-3).all()


def test_one_mask_vector_serves_all_positions():
    shared = tiny_config(mrar=True, model={"mask_tokens": 1}).model
    params = random_params(MRAR)
    vector = params["encoder"]["mask_embedding"][:1]
    own = {"encoder": params["encoder"] | {"mask_embedding": jnp.repeat(vector, 4, axis=0)}}
    one = {"encoder": params["encoder"] | {"mask_embedding": vector}}
    made = encode(shared, one, LABELS, NULL, REFERENCES)
    np.testing.assert_array_equal(made.features, encode(MRAR, own, LABELS, NULL, REFERENCES).features)


@pytest.mark.parametrize(
    ("model", "labels", "null", "references", "fragment"),
    [
        (MRAR, jnp.zeros((2, 1), int), jnp.zeros((2, 1), bool), None, r"must both be \[b\], got \(2, 1\)"),
        (MRAR, jnp.zeros(2, int), jnp.zeros(4, bool), None, r"must both be \[b\], got \(2,\) and \(4,\)"),
        (MRAR, jnp.zeros(2, int), jnp.zeros(2, bool), jnp.zeros((4, 1, 4, 4, 4)), r"must be \(2, 1, 4, 4, 4\)"),
        (MRAR, jnp.zeros(2, int), jnp.zeros(2, bool), jnp.zeros((2, 1, 8, 2, 4)), r"got \(2, 1, 8, 2, 4\)"),
        (MRAR, jnp.zeros(2, int), jnp.zeros(2, bool), jnp.zeros((2, 4, 4, 4, 4)), "with 1 to 3 images"),
        (MRAR, jnp.zeros(2, int), jnp.zeros(2, bool), jnp.zeros((2, 0, 4, 4, 4)), "with 1 to 3 images"),
        (ONE_STEP, jnp.zeros(2, int), jnp.zeros(2, bool), jnp.zeros((2, 1, 4, 4, 4)), "with 1 to 0 images"),
    ],
)
def test_shapes_that_do_not_fit(model, labels, null, references, fragment):
    with unchecked(), pytest.raises(ValueError, match=fragment):
        encode(model, random_params(model), labels, null, references)
