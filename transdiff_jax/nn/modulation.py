"""Adaptive modulation: all tokens of a row share one shift, one scale and one gate.

The gradients of the three are sums over a row's tokens, written here by hand. Before a sum of one array over tokens,
XLA for GPUs turns the array around, so that its tokens lie next to each other, and with it every array of the backward
pass that meets it. Two arrays that are summed in one pass stay as they are.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Float32

Tokens = Float32[Array, "b tokens width"]
Vectors = Float32[Array, "#b width"]  # one for each row, or one for all


@jax.custom_vjp
def modulate(x: Tokens, shift: Vectors, scale: Vectors) -> Tokens:
    """x (1 + scale) + shift."""
    return x * (1 + scale[:, None]) + shift[:, None]


def _modulate_forward(x: Tokens, shift: Vectors, scale: Vectors) -> tuple[Tokens, tuple[Tokens, Vectors]]:
    return modulate(x, shift, scale), (x, scale)


def _modulate_backward(kept: tuple[Tokens, Vectors], slope: Tokens) -> tuple[Tokens, Vectors, Vectors]:
    x, scale = kept
    shift_slope, scale_slope = sum_tokens(slope, slope * x)
    return slope * (1 + scale[:, None]), _like(shift_slope, scale), _like(scale_slope, scale)


modulate.defvjp(_modulate_forward, _modulate_backward)


@jax.custom_vjp
def add_gated(x: Tokens, gate: Vectors, branch: Float[Array, "b tokens width"]) -> Tokens:
    """x + gate * branch."""
    return x + gate[:, None] * branch


def _add_gated_forward(
    x: Tokens, gate: Vectors, branch: Float[Array, "b tokens width"]
) -> tuple[Tokens, tuple[Vectors, Float[Array, "b tokens width"]]]:
    return add_gated(x, gate, branch), (gate, branch)


def _add_gated_backward(
    kept: tuple[Vectors, Float[Array, "b tokens width"]], slope: Tokens
) -> tuple[Tokens, Vectors, Float[Array, "b tokens width"]]:
    gate, branch = kept
    halves = jnp.split(slope * branch, 2, axis=-1)
    gate_slope = jnp.concatenate(sum_tokens(*halves), axis=-1)
    return slope, _like(gate_slope, gate), (slope * gate[:, None]).astype(branch.dtype)


add_gated.defvjp(_add_gated_forward, _add_gated_backward)


def sum_tokens(first: Tokens, second: Tokens) -> tuple[Float32[Array, "b width"], Float32[Array, "b width"]]:
    """Sums of two arrays over tokens, in one pass."""
    sums = jax.lax.reduce((first, second), (jnp.float32(0), jnp.float32(0)), _add_pairs, (1,))
    return sums[0], sums[1]


def _add_pairs(sums: tuple[Array, Array], more: tuple[Array, Array]) -> tuple[Array, Array]:
    return sums[0] + more[0], sums[1] + more[1]


def _like(slope: Float32[Array, "b width"], vectors: Vectors) -> Vectors:
    """Sums over rows too if they share one vector."""
    return slope if len(slope) == len(vectors) else slope.sum(axis=0, keepdims=True)
