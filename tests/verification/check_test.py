import math

import numpy as np

from transdiff_jax.verification.check import Check, relative_error


def test_relative_error():
    assert math.isclose(relative_error(np.array([3.0, 4.4]), np.array([3.0, 4.0])), 0.4 / 5)
    assert relative_error(np.zeros(2), np.zeros(2)) == 0
    assert relative_error(np.ones(2), np.zeros(2)) == math.inf
    assert relative_error(np.ones((2, 1)), np.ones(2)) == math.inf


def test_nan_is_not_ok():
    assert Check("a", 1e-5, 1e-5).ok
    assert not Check("a", 2e-5, 1e-5).ok
    assert not Check("a", relative_error(np.array([np.nan]), np.ones(1)), 1e-5).ok
