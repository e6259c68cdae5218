"""Classifier-free guidance of a velocity.

Guiding the velocity equals guiding the drift (at fixed x and t the drift is affine in the velocity and the guidance
weights sum to one), so it wraps any velocity and works with every solver. One rule for the whole package: weight 1
is one pass without a null class.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array
VelocityFn = Callable[[Array, Array], Array]  # (x [b, tokens, channels], t scalar in [0, 1]) -> velocity like x


def is_guided(weight: float) -> bool:
    """Whether a guidance weight asks for the second, unconditional pass."""
    return weight > 1


def interleave(conditional: Array, unconditional: Array) -> Array:
    """[b, ...], [b, ...] -> [2b, ...] with the two rows of a pair next to each other.

    Interleaved and not concatenated, so that a batch sharded over its rows stays where it is.
    """
    if conditional.shape != unconditional.shape:
        raise ValueError(f"a guided pair needs equal shapes, got {conditional.shape} and {unconditional.shape}")
    batch, *rest = conditional.shape
    return jnp.stack([conditional, unconditional], axis=1).reshape(2 * batch, *rest)


def guide(velocity: VelocityFn, weight: float) -> VelocityFn:
    """The guided velocity u + weight (c - u) of b rows, from one of b rows to the velocities of 2b interleaved (c, u).

    The halves of a pair are at the same x, which `velocity` may make use of.
    """

    def guided(x: Array, t: Array) -> Array:
        batch, *rest = x.shape
        pairs = velocity(x, t).reshape(batch, 2, *rest)
        conditional, unconditional = pairs[:, 0], pairs[:, 1]
        return unconditional + weight * (conditional - unconditional)

    return guided
