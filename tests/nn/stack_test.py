import flax.linen as nn
import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

from transdiff_jax.nn.dropout import Dropout
from transdiff_jax.nn.layers import dense
from transdiff_jax.nn.stack import REMAT_POLICIES, stack, unstack


class Block(nn.Module):
    """x -> x + tanh(linear(x)) * shared + own; its second output is a vector of ones after dropout."""

    @nn.compact
    def __call__(self, x, own, shared):
        x = x + jnp.tanh(dense(4, ("embed", "mlp"), jnp.float32, name="linear")(x)) * shared + own
        return x, Dropout(0.5)(jnp.ones(64))


def make(remat="none"):
    return stack(Block, 3, in_axes=(0, nn.broadcast), remat=remat)()


X = jnp.linspace(-1, 1, 8).reshape(2, 4)
OWN, SHARED = jnp.array([0.1, 0.2, 0.3]), jnp.array([1.0, 2.0, 3.0, 4.0])
PARAMS = make().init(jax.random.key(0), X, OWN, SHARED)


def test_parameters_are_stacked_under_a_named_axis():
    kernel = PARAMS["params"]["linear"]["kernel"]
    assert kernel.names == ("layers", "embed", "mlp")
    assert kernel.unbox().shape == (3, 4, 4)
    assert PARAMS["params"]["linear"]["bias"].names == ("layers", "mlp")
    # Each layer has its own draw, at the scale of one layer.
    assert not np.allclose(kernel.unbox()[0], kernel.unbox()[1])
    assert np.abs(kernel.unbox()).max() > 0.9 * (6 / 8) ** 0.5


def test_stack_is_its_layers_one_after_another():
    params = nn.unbox(PARAMS)["params"]["linear"]
    x = X
    for layer in range(3):
        x = x + jnp.tanh(x @ params["kernel"][layer] + params["bias"][layer]) * SHARED + OWN[layer]
    np.testing.assert_allclose(make().apply(PARAMS, X, OWN, SHARED)[0], x, rtol=1e-6)


def test_layers_drop_differently():
    _, dropped = make().apply(PARAMS, X, OWN, SHARED, rngs={"dropout": jax.random.key(0)})
    assert dropped.shape == (3, 64)
    assert set(np.unique(dropped)) == {0.0, 2.0}
    assert len({tuple(row.tolist()) for row in dropped}) == 3


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_rematerialisation_changes_no_number(remat):
    key = jax.random.key(3)

    def loss(params, module):
        x, dropped = module.apply(params, X, OWN, SHARED, rngs={"dropout": key})
        return jnp.sum(x**2) + jnp.sum(dropped * x[0, 0])

    assert set(REMAT_POLICIES) == {"dots", "full"}
    expected = jax.value_and_grad(loss)(PARAMS, make())
    made = jax.value_and_grad(loss)(PARAMS, make(remat))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), made, expected)


def count(jaxpr, name):
    """How often a primitive occurs in a program and the programs inside it."""
    inner = [value for equation in jaxpr.eqns for value in jax.extend.core.jaxprs_in_params(equation.params)]
    return sum(equation.primitive.name == name for equation in jaxpr.eqns) + sum(count(sub, name) for sub in inner)


def test_layers_are_one_loop():
    program = jax.jit(lambda x: make().apply(PARAMS, x, OWN, SHARED)[0]).lower(X).as_text()
    assert program.count("stablehlo.while") == program.count("stablehlo.dot_general") == 1


def test_unstacked_layers():
    first, second = unstack({"a": jnp.arange(6).reshape(2, 3), "b": jnp.array([7, 8])})
    assert (first["a"].tolist(), first["b"].tolist()) == ([0, 1, 2], 7)
    assert (second["a"].tolist(), second["b"].tolist()) == ([3, 4, 5], 8)


@pytest.mark.parametrize(("remat", "multiplications"), [("none", 0), ("dots", 0), ("full", 1)])
def test_what_the_backward_pass_computes_again(remat, multiplications):
    def loss(params):
        return jnp.sum(make(remat).apply(params, X, OWN, SHARED)[0])

    program = jax.make_jaxpr(jax.grad(loss))(nn.unbox(PARAMS))
    forward_and_backward = count(program.jaxpr, "dot_general")
    # One forward, two backward (for the input and for the weights).
    assert forward_and_backward == 3 + multiplications


def test_what_is_kept_has_its_bias():
    def loss(params):
        return jnp.sum(make("dots").apply(params, X, OWN, SHARED)[0])

    _, backward = jax.vjp(loss, nn.unbox(PARAMS))
    biased = jnp.zeros_like(X)
    x, params = X, nn.unbox(PARAMS)["params"]["linear"]
    for layer in range(3):
        biased = x @ params["kernel"][layer] + params["bias"][layer]
        x = x + jnp.tanh(biased) * SHARED + OWN[layer]
    kept = [np.asarray(leaf)[-1] for leaf in jax.tree.leaves(backward) if np.shape(leaf) == (3, *X.shape)]
    assert any(np.allclose(leaf, biased, atol=1e-6) for leaf in kept)
