import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import literal
from tests.support.parameters import perturb
from transdiff_jax.nn.dropout import Dropout
from transdiff_jax.nn.layers import (
    Mlp,
    TimeEmbedding,
    dense,
    gelu,
    layer_norm,
    modulation_init,
    time_features,
    with_axes,
)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize(
    ("features", "axes", "contract", "inputs", "bound"),
    [
        (24, ("embed", "mlp"), 1, (8,), (6 / 32) ** 0.5),
        ((3, 2, 4), ("embed", "qkv", "heads", "head_dim"), 1, (8,), (6 / 32) ** 0.5),
        (8, ("heads", "head_dim", "embed"), 2, (6, 4), (6 / 32) ** 0.5),
    ],
)
def test_dense_starts_xavier_uniform_over_the_flat_matrix(features, axes, contract, inputs, bound):
    module = dense(features, axes, jnp.float32, contract=contract)
    params = nn.unbox(module.init(jax.random.key(0), jnp.zeros((1, *inputs))))["params"]
    kernel = np.asarray(params["kernel"])
    assert kernel.shape == inputs + (features if isinstance(features, tuple) else (features,))
    assert 0.95 * bound < np.abs(kernel).max() <= bound
    assert abs(kernel.std() / (bound / 3**0.5) - 1) < 0.15
    np.testing.assert_array_equal(params["bias"], 0)


def test_dense_names_its_axes():
    params = dense((3, 2), ("embed", "heads", "head_dim"), jnp.float32).init(jax.random.key(0), jnp.zeros((1, 4)))
    names = nn.get_partition_spec(params)["params"]
    assert tuple(names["kernel"]) == ("embed", "heads", "head_dim")
    assert tuple(names["bias"]) == ("heads", "head_dim")


def test_dense_computes_in_its_dtype_from_float32_parameters():
    module = dense(4, ("embed", "mlp"), jnp.bfloat16)
    params = module.init(jax.random.key(0), jnp.zeros((1, 4)))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert module.apply(params, jnp.zeros((1, 4))).dtype == jnp.bfloat16


@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm_literal(affine):
    # Small enough that an epsilon other than 1e-6 shows.
    x = 1e-3 * normal(0, 3, 8)
    module = layer_norm(affine=affine)
    params = perturb(module.init(jax.random.key(0), x).get("params", {}))
    assert set(params) == ({"scale", "bias"} if affine else set())
    expected = literal.norm(literal.to_numpy(params) or None, np.asarray(x, np.float64))
    np.testing.assert_allclose(module.apply({"params": params}, x), expected, rtol=1e-5, atol=1e-6)


def test_layer_norm_keeps_small_variations_of_large_values():
    x = 300 + 0.01 * normal(0, 4, 64)
    expected = literal.norm(None, np.asarray(x, np.float64))
    made = layer_norm(affine=False).apply({}, x)
    np.testing.assert_allclose(made, expected, atol=0.01)


def test_mlp_literal():
    x = normal(0, 2, 3, 4)
    module = Mlp(4, 0.0, jnp.float32)
    params = perturb(module.init(jax.random.key(0), x)["params"])
    assert params["up"]["kernel"].shape == (4, 16)
    expected = literal.mlp(literal.to_numpy(params), np.asarray(x, np.float64))
    # The tanh approximation of GELU would be off by up to 5e-4.
    np.testing.assert_allclose(module.apply({"params": params}, x), expected, rtol=1e-5, atol=2e-6)


def test_gelu_of_bfloat16_is_the_nearest_bfloat16():
    x = jnp.linspace(-4, 4, 2001).astype(jnp.bfloat16)
    exact = literal.gelu(np.asarray(x, np.float64))
    made = gelu(x)
    assert made.dtype == jnp.bfloat16
    # Half of the last place. Below -3 float32's own error shows.
    np.testing.assert_allclose(np.asarray(made, np.float64), exact, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_derivative_of_gelu_literal(dtype):
    x = jnp.linspace(-6, 6, 2001).astype(dtype)
    wide, step = np.asarray(x, np.float64), 1e-5
    exact = (literal.gelu(wide + step) - literal.gelu(wide - step)) / (2 * step)
    (made,) = jax.vjp(gelu, x)[1](jnp.ones_like(x))
    assert made.dtype == x.dtype
    rtol = 1e-5 if dtype == "float32" else 2**-8
    np.testing.assert_allclose(np.asarray(made, np.float64), exact, rtol=rtol, atol=1e-6)


def test_products_are_of_matrices():
    module, x = dense(8, ("embed", "mlp"), jnp.float32), normal(0, 3, 5, 4)
    params = nn.unbox(module.init(jax.random.key(0), x))

    def loss(params):
        return jnp.sum(jnp.sin(module.apply(params, x)))

    def plain(params):
        return jnp.sum(jnp.sin(x @ params["params"]["kernel"] + params["params"]["bias"]))

    made, expected = jax.grad(loss)(params), jax.grad(plain)(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), made, expected)
    program = jax.jit(jax.grad(loss)).lower(params).as_text()
    products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) == 2
    assert all("tensor<15x" in line for line in products)


def test_mlp_drops_after_the_activation_and_at_the_end():
    x = normal(0, 8, 16, 8)
    module = Mlp(8, 0.25, jnp.float32)
    params = module.init(jax.random.key(0), x)
    _, state = module.apply(
        params,
        x,
        rngs={"dropout": jax.random.key(1)},
        capture_intermediates=lambda module, _: isinstance(module, Dropout),
    )
    dropped = [values["__call__"][0] for values in state["intermediates"].values()]
    assert sorted(values.shape for values in dropped) == [(8, 16, 8), (8, 16, 32)]
    for values in dropped:
        assert abs(np.mean(np.asarray(values) == 0) - 0.25) < 0.05
    hidden = max(dropped, key=jnp.size)
    kept = literal.gelu(literal.linear(literal.to_numpy(nn.unbox(params)["params"]["up"]), np.asarray(x))) / 0.75
    np.testing.assert_allclose(hidden, np.where(hidden == 0, 0, kept), rtol=1e-4, atol=1e-5)


def test_time_features_literal():
    timesteps = jnp.array([[0, 1], [500, 999]])
    made = time_features(timesteps)
    assert made.shape == (2, 2, 256)
    assert made.dtype == jnp.float32
    expected = [[literal.time_features(float(t)) for t in row] for row in timesteps]
    np.testing.assert_allclose(made, expected, atol=2e-4)
    np.testing.assert_array_equal(made[0, 0], [1.0] * 128 + [0.0] * 128)


def test_time_embedding_literal():
    module = TimeEmbedding(8, jnp.float32)
    timesteps = jnp.array([0.0, 3.5, 700.0])
    params = perturb(module.init(jax.random.key(0), timesteps)["params"])
    embedding, modulation = module.apply({"params": params}, timesteps)
    p = literal.to_numpy(params)
    raw = np.stack([literal.time_features(t) for t in (0.0, 3.5, 700.0)])
    expected = literal.linear(p["down"], literal.silu(literal.linear(p["up"], raw)))
    np.testing.assert_allclose(embedding, expected, rtol=1e-3, atol=1e-3)
    shared = literal.linear(p["modulation"], literal.silu(expected))
    assert modulation.shape == (3, 6, 8)
    np.testing.assert_allclose(modulation, shared, rtol=1e-3, atol=1e-3)


def test_modulation_table_has_variance_one_over_width():
    table = modulation_init(jax.random.key(0), (600, 16))
    assert abs(table.std() * 4 - 1) < 0.03
    assert abs(table.mean()) < 0.01


def test_with_axes_boxes_the_parameter():
    boxed = with_axes(nn.initializers.ones, "positions", "embed")(jax.random.key(0), (2, 3))
    assert boxed.names == ("positions", "embed")
    np.testing.assert_array_equal(boxed.unbox(), np.ones((2, 3)))
