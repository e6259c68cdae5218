import numpy as np
import pytest

from transdiff_jax.evaluation.metrics import Gaussian, fit_gaussian, frechet_distance


def test_of_diagonal_gaussians_it_is_the_closed_form():
    a = Gaussian(np.array([1.0, 2.0]), np.diag([4.0, 9.0]))
    b = Gaussian(np.array([0.0, 4.0]), np.diag([1.0, 16.0]))
    assert frechet_distance(a, b) == pytest.approx((1 + 4) + (2 - 1) ** 2 + (3 - 4) ** 2)


def test_it_is_symmetric_and_zero_only_between_equals():
    generator = np.random.default_rng(0)
    a, b = (fit_gaussian(generator.normal(size=(50, 4)) @ generator.normal(size=(4, 4))) for _ in range(2))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a, b) > 0.1
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10)


def test_singular_covariances():
    flat = Gaussian(np.zeros(3), np.diag([1.0, 0.0, 0.0]))
    assert frechet_distance(flat, flat) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(flat, Gaussian(np.zeros(3), np.diag([0.0, 4.0, 0.0]))) == pytest.approx(5)


def test_covariance_is_unbiased():
    gaussian = fit_gaussian(np.array([[0.0, 0.0], [2.0, 4.0]]))
    np.testing.assert_allclose(gaussian.mean, [1, 2])
    np.testing.assert_allclose(gaussian.covariance, [[2, 4], [4, 8]])


def test_features_of_other_width():
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        frechet_distance(Gaussian(np.zeros(2), np.eye(2)), Gaussian(np.zeros(3), np.eye(3)))
