"""Classifier-free guidance of a velocity.

Guiding the velocity equals guiding the drift: at fixed x and t the drift is affine in the velocity, and the guidance
weights sum to one. So guidance wraps any velocity and works with every solver. One rule holds everywhere: weight 1
means one pass without a null class, for a whole image or at single times.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Shaped

from transdiff_jax.config import SamplingConfig

Latents = Float[Array, "*shape"]  # float32; the model's are [b, tokens, c]
Time = Float[Array, ""] | float  # in [0, 1]
VelocityFn = Callable[[Latents, Time], Latents]


def guidance_weights(config: SamplingConfig, times: Float[np.ndarray, "*times"]) -> Float[np.ndarray, "*times"]:
    """The guidance weight at each time.

    Args:
        config: one image's settings (from `SamplingConfig.of_images`): a single weight, its interval and schedule.
        times: in [0, 1], float32.

    Returns:
        float32; 1 outside the interval. The ends of the interval belong to it.
    """
    (weight,) = config.guidance
    low, high = (np.float32(end) for end in config.guidance_interval)
    progress = 1 - times.astype(np.float64)
    growth = {
        "constant": np.ones_like(progress),
        "linear": progress,
        "power_cosine": (1 - np.cos(np.pi * progress**config.guidance_power)) / 2,
    }[config.guidance_schedule]
    inside = (times >= low) & (times <= high)
    return np.where(inside, 1 + (weight - 1) * growth, 1).astype(np.float32)


def is_guided(weight: Float[Array | np.ndarray, "*times"] | float) -> Bool[Array | np.ndarray, "*times"] | bool:
    """Whether a guidance weight needs the second, unconditional pass."""
    return weight > 1


def interleave(conditional: Shaped[Array, "b ..."], unconditional: Shaped[Array, "..."]) -> Shaped[Array, "2*b ..."]:
    """Puts the two rows of each pair next to each other.

    The rows are interleaved, not concatenated, so that a batch sharded over its rows stays in place.

    Raises:
        ValueError: the shapes differ.
    """
    if conditional.shape != unconditional.shape:
        raise ValueError(f"a guided pair needs equal shapes, got {conditional.shape} and {unconditional.shape}")
    batch, *rest = conditional.shape
    return jnp.stack([conditional, unconditional], axis=1).reshape(2 * batch, *rest)


def guide(velocity: VelocityFn, weight: Float[Array, ""] | float) -> VelocityFn:
    """The guided velocity u + weight (c - u).

    Args:
        velocity: takes b rows and returns the velocities of 2b, interleaved: conditional c, unconditional u. Both
            halves of a pair are at the same x, and `velocity` may rely on that.
        weight: the guidance weight.

    Returns:
        A velocity that takes b rows and returns b.
    """

    def guided(x: Latents, t: Time) -> Latents:
        batch, *rest = x.shape
        pairs = velocity(x, t).reshape(batch, 2, *rest)
        conditional, unconditional = pairs[:, 0], pairs[:, 1]
        return unconditional + weight * (conditional - unconditional)

    return guided
