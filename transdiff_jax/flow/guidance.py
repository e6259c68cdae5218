"""Classifier-free guidance of a velocity.

Guiding the velocity equals guiding the drift (at fixed x and t the drift is affine in the velocity and the guidance
weights sum to one), so it wraps any velocity and works with every solver. One rule for the whole package: weight 1
is one pass without a null class, for a whole image or at single times.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from transdiff_jax.config import SamplingConfig

Array = jax.Array
VelocityFn = Callable[[Array, Array], Array]  # (x [b, tokens, channels], t scalar in [0, 1]) -> velocity like x


def guidance_weights(config: SamplingConfig, times: np.ndarray) -> np.ndarray:
    """The weight at each time.

    Args:
        config: with one guidance weight (of `SamplingConfig.of_images`), its interval and schedule.
        times: any shape, float32 in [0, 1].

    Returns:
        float32 like `times`; 1 outside the interval, whose ends belong to it.
    """
    (weight,) = config.guidance
    low, high = np.float32(config.guidance_interval)
    progress = 1 - times.astype(np.float64)
    growth = {
        "constant": np.ones_like(progress),
        "linear": progress,
        "power_cosine": (1 - np.cos(np.pi * progress**config.guidance_power)) / 2,
    }[config.guidance_schedule]
    inside = (times >= low) & (times <= high)
    return np.where(inside, 1 + (weight - 1) * growth, 1).astype(np.float32)


def is_guided(weight: np.ndarray | Array) -> np.ndarray | Array:
    """Whether guidance weights ask for the second, unconditional pass."""
    return weight > 1


def interleave(conditional: Array, unconditional: Array) -> Array:
    """[b, ...], [b, ...] -> [2b, ...] with the two rows of a pair next to each other.

    Interleaved and not concatenated, so that a batch sharded over its rows stays where it is.
    """
    if conditional.shape != unconditional.shape:
        raise ValueError(f"a guided pair needs equal shapes, got {conditional.shape} and {unconditional.shape}")
    batch, *rest = conditional.shape
    return jnp.stack([conditional, unconditional], axis=1).reshape(2 * batch, *rest)


def guide(velocity: VelocityFn, weight: float | Array) -> VelocityFn:
    """The guided velocity u + weight (c - u) of b rows, from one of b rows to the velocities of 2b interleaved (c, u).

    The halves of a pair are at the same x, which `velocity` may make use of.
    """

    def guided(x: Array, t: Array) -> Array:
        batch, *rest = x.shape
        pairs = velocity(x, t).reshape(batch, 2, *rest)
        conditional, unconditional = pairs[:, 0], pairs[:, 1]
        return unconditional + weight * (conditional - unconditional)

    return guided
