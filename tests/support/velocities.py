"""Velocities that are exactly known."""


def gaussian_velocity(x, t, scale):
    """E[e - x_0 | x_t = x] for x_0 ~ N(0, scale**2): the covariance of e - x_0 and x_t over the variance of x_t."""
    return x * (t - (1 - t) * scale**2) / ((1 - t) ** 2 * scale**2 + t**2)
