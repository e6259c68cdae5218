"""The straight path between data (t = 0) and noise (t = 1), and what a velocity says about it.

x_t = (1 - t) x + t e with e ~ N(0, I); the network learns v = E[e - x | x_t] (paper, section 3.2). All functions are
elementwise; `t` must broadcast against the latents.
"""

import jax

Array = jax.Array


def interpolate(x: Array, noise: Array, t: Array) -> Array:
    """The point of the path at time `t` in [0, 1]."""
    return (1 - t) * x + t * noise


def velocity_target(x: Array, noise: Array) -> Array:
    """The derivative of the path, d x_t / dt."""
    return noise - x


def score_from_velocity(velocity: Array, x_t: Array, t: Array) -> Array:
    """grad log p_t(x_t) of the marginal that `velocity` transports; `t` in (0, 1]."""
    return -((1 - t) * velocity + x_t) / t


def sde_drift(velocity: Array, x_t: Array, t: Array) -> Array:
    """Drift of the reverse SDE with squared diffusion coefficient g^2 = 2t: v - (g^2 / 2) score.

    Written without the division by t that `score_from_velocity` has, so that it is exact down to t = 0.
    """
    return (2 - t) * velocity + x_t
