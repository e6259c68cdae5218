"""The straight path between data (t = 0) and noise (t = 1), and what a velocity says about it.

x_t = (1 - t) x + t e with e ~ N(0, I); the network learns v = E[e - x | x_t] (paper, section 3.2). All functions are
elementwise, and their arguments broadcast against each other.
"""

from jax import Array
from jaxtyping import Float

Values = Float[Array, "*#shape"]
Times = Float[Array, "*#shape"] | float


def interpolate(x: Values, noise: Values, t: Times) -> Values:
    """The point of the path at time `t` in [0, 1]."""
    return (1 - t) * x + t * noise


def velocity_target(x: Values, noise: Values) -> Values:
    """The derivative of the path, d x_t / dt."""
    return noise - x


def score_from_velocity(velocity: Values, x_t: Values, t: Times) -> Values:
    """grad log p_t(x_t) of the marginal that `velocity` transports; `t` in (0, 1]."""
    return -((1 - t) * velocity + x_t) / t


def sde_drift(velocity: Values, x_t: Values, t: Times) -> Values:
    """Drift of the reverse SDE with squared diffusion coefficient g^2 = 2t: v - (g^2 / 2) score.

    The formula avoids the division by t in `score_from_velocity`, so it is exact down to t = 0.
    """
    return (2 - t) * velocity + x_t
