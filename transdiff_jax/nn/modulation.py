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
Branch = Float[Array, "b tokens width"]  # in the compute dtype
Vectors = Float32[Array, "#b width"]  # one for each row, or one for all
Sums = Float32[Array, "b width"]


@jax.custom_vjp
def modulate(x: Tokens, shift: Vectors, scale: Vectors) -> Tokens:
    """x (1 + scale) + shift."""
    return x * (1 + scale[:, None]) + shift[:, None]


def _modulate_forward(x: Tokens, shift: Vectors, scale: Vectors) -> tuple[Tokens, tuple[Tokens, Vectors]]:
    return modulate(x, shift, scale), (x, scale)


def _modulate_backward(kept: tuple[Tokens, Vectors], cotangent: Tokens) -> tuple[Tokens, Vectors, Vectors]:
    x, scale = kept
    of_shift, of_scale = _sum_tokens(cotangent, cotangent * x)
    return cotangent * (1 + scale[:, None]), _as_shared(of_shift, scale), _as_shared(of_scale, scale)


modulate.defvjp(_modulate_forward, _modulate_backward)


@jax.custom_vjp
def add_gated(x: Tokens, gate: Vectors, branch: Branch) -> Tokens:
    """x + gate * branch."""
    return x + gate[:, None] * branch


def _add_gated_forward(x: Tokens, gate: Vectors, branch: Branch) -> tuple[Tokens, tuple[Vectors, Branch]]:
    return add_gated(x, gate, branch), (gate, branch)


def _add_gated_backward(kept: tuple[Vectors, Branch], cotangent: Tokens) -> tuple[Tokens, Vectors, Branch]:
    gate, branch = kept
    halves = jnp.split(cotangent * branch, 2, axis=-1)
    of_gate = jnp.concatenate(_sum_tokens(*halves), axis=-1)
    return cotangent, _as_shared(of_gate, gate), (cotangent * gate[:, None]).astype(branch.dtype)


add_gated.defvjp(_add_gated_forward, _add_gated_backward)


def _sum_tokens(first: Tokens, second: Tokens) -> tuple[Sums, Sums]:
    """In one pass on NVIDIA's GPUs alone: CPUs take longer for it than for two."""
    return jax.lax.platform_dependent(first, second, cuda=sum_together, default=sum_apart)


def sum_together(first: Tokens, second: Tokens) -> tuple[Sums, Sums]:
    """Sums over tokens, in one pass."""
    first_sum, second_sum = jax.lax.reduce((first, second), (jnp.float32(0), jnp.float32(0)), _add_pairs, (1,))
    return first_sum, second_sum


def sum_apart(first: Tokens, second: Tokens) -> tuple[Sums, Sums]:
    """Sums over tokens, one after the other."""
    return first.sum(axis=1), second.sum(axis=1)


def _add_pairs(sums: tuple[Array, Array], more: tuple[Array, Array]) -> tuple[Array, Array]:
    return sums[0] + more[0], sums[1] + more[1]


def _as_shared(sums: Sums, vectors: Vectors) -> Vectors:
    """The sums, added over rows too where all rows share one vector."""
    return sums if len(sums) == len(vectors) else sums.sum(axis=0, keepdims=True)
