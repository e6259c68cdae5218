import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transdiff_jax.nn.modulation import add_gated, modulate, sum_apart, sum_together


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def plain_modulate(x, shift, scale):
    return x * (1 + scale[..., None, :]) + shift[..., None, :]


def plain_gate(x, gate, branch):
    return x + gate[..., None, :] * branch


X, SLOPE = normal(0, 3, 5, 8), normal(1, 3, 5, 8)


def test_modulate_literal():
    x = jnp.arange(12.0).reshape(2, 3, 2)
    made = modulate(x, jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[0.0, 1.0], [-1.0, 0.5]]))
    expected = [[[1, 4], [3, 8], [5, 12]], [[3, 14.5], [3, 17.5], [3, 20.5]]]
    np.testing.assert_allclose(made, expected)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("written", [modulate, add_gated])
def test_value_and_gradients_are_those_of_the_formula(written, dtype, rows):
    if written is modulate:
        plain, inputs = plain_modulate, (X, normal(2, rows, 8), normal(3, rows, 8))
    else:
        plain, inputs = plain_gate, (X, normal(2, rows, 8), normal(3, 3, 5, 8).astype(dtype))
    made, backward = jax.vjp(written, *inputs)
    expected, by_jax = jax.vjp(plain, *inputs)
    np.testing.assert_array_equal(made, expected)
    for ours, theirs in zip(backward(SLOPE), by_jax(SLOPE), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours.astype(jnp.float32), theirs.astype(jnp.float32), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("written", [modulate, add_gated])
def test_gpus_sum_tokens_two_arrays_at_a_time(written):
    def backward(x, first, second, slope):
        return jax.vjp(written, x, first, second)[1](slope)

    second = normal(3, 3, 8) if written is modulate else X
    traced = jax.jit(backward).trace(X, normal(2, 3, 8), second, SLOPE)
    program = traced.lower(lowering_platforms=("cuda",)).as_text()
    sums = [line for line in program.splitlines() if "stablehlo.reduce(" in line]
    assert len(sums) == 1
    assert sums[0].count(" init:") == 2, "XLA turns the operand of a single sum around"


def test_sums_in_one_pass_are_those_one_after_the_other():
    for together, apart in zip(sum_together(X, SLOPE), sum_apart(X, SLOPE), strict=True):
        np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-6)
