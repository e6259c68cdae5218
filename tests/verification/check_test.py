import math

import numpy as np

from transdiff_jax.verification.check import Check, relative_error, relative_error_of_all


def test_relative_error():
    assert math.isclose(relative_error(np.array([3.0, 4.4]), np.array([3.0, 4.0])), 0.4 / 5)
    assert relative_error(np.zeros(2), np.zeros(2)) == 0
    assert relative_error(np.ones(2), np.zeros(2)) == math.inf
    assert relative_error(np.ones((2, 1)), np.ones(2)) == math.inf


def test_nan_is_not_ok():
    assert Check("a", 1e-5, 1e-5).ok
    assert not Check("a", 2e-5, 1e-5).ok
    assert not Check("a", relative_error(np.array([np.nan]), np.ones(1)), 1e-5).ok


def test_all_tensors_count_as_one_vector():
    reference = {"a": np.array([3.0, 0.0]), "b": np.array([[0.0, 4.0]])}
    ours = {"a": np.array([3.0, 0.3]), "b": np.array([[0.4, 4.0]]), "c": np.ones(1)}
    assert math.isclose(relative_error_of_all(ours, reference), 0.1)
    assert relative_error_of_all({"a": np.zeros(1)}, {"a": np.zeros(2)}) == math.inf
    assert relative_error_of_all({"a": np.zeros(2)}, {"a": np.zeros(2)}) == 0
    assert math.isnan(relative_error_of_all({"a": np.array([np.nan])}, {"a": np.ones(1)}))


def test_a_tensor_that_is_missing_is_an_infinite_error():
    assert relative_error_of_all({}, {"a": np.ones(1)}) == math.inf
    assert relative_error_of_all({"a": np.ones(1)}, {}) == math.inf
