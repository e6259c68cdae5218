import numpy as np
import pytest
import scipy.linalg

from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.metrics import frechet_distance, inception_score, kernel_distance
from transdiff_jax.evaluation.statistics import Gaussian, fit_gaussian


def features(count, width, seed):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(count, width)) @ draw.normal(size=(width, width)) + draw.normal(size=width)


def test_frechet_of_diagonal_gaussians_is_the_closed_form():
    a = Gaussian(np.array([1.0, 2.0]), np.diag([4.0, 9.0]))
    b = Gaussian(np.array([0.0, 4.0]), np.diag([1.0, 16.0]))
    assert frechet_distance(a, b) == pytest.approx((1 + 4) + (2 - 1) ** 2 + (3 - 4) ** 2)


def test_frechet_is_symmetric_and_zero_only_between_equals():
    a, b = (fit_gaussian(features(50, 4, seed), "a") for seed in (0, 1))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a, b) > 0.1
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10)


def test_frechet_agrees_with_the_eigenvalues_of_the_product():
    a, b = (fit_gaussian(features(300, 100, seed), "a") for seed in (0, 1))
    roots = np.sqrt(scipy.linalg.eigvals(a.covariance @ b.covariance)).real
    expected = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance + b.covariance) - 2 * roots.sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_singular_covariances():
    flat = Gaussian(np.zeros(3), np.diag([1.0, 0.0, 0.0]))
    assert frechet_distance(flat, flat) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(flat, Gaussian(np.zeros(3), np.diag([0.0, 4.0, 0.0]))) == pytest.approx(5)
    assert frechet_distance(flat, Gaussian(np.zeros(3), np.zeros((3, 3)))) == pytest.approx(1)


@pytest.mark.parametrize("counts", [(20, 20), (20, 300), (300, 5)])
def test_frechet_of_singular_covariances_is_the_plain_formula(counts):
    a, b = (fit_gaussian(features(count, 40, seed), "a") for seed, count in enumerate(counts))
    assert min(np.linalg.matrix_rank(part.covariance) for part in (a, b)) == min(counts) - 1
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance)
    expected = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance + b.covariance - 2 * root.real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_of_few_samples_is_that_within_their_span():
    # 20 samples in 200 dimensions span 20 of them; within these the covariance is almost regular.
    draw = np.random.default_rng(0)
    basis = scipy.linalg.qr(draw.normal(size=(200, 20)), mode="economic")[0]
    inner = [draw.normal(size=(20, 20)) + shift for shift in (0.0, 0.3)]
    outer = [fit_gaussian(rows @ basis.T, "a") for rows in inner]
    within = [fit_gaussian(rows, "a") for rows in inner]
    assert frechet_distance(*outer) == pytest.approx(frechet_distance(*within), rel=1e-9)
    assert frechet_distance(outer[0], outer[0]) == pytest.approx(0, abs=1e-9)


def test_frechet_of_samples_that_share_no_direction():
    draw = np.random.default_rng(0)
    basis = scipy.linalg.qr(draw.normal(size=(200, 40)), mode="economic")[0]
    a, b = (fit_gaussian(draw.normal(size=(20, 20)) @ part.T, "a") for part in np.split(basis, 2, axis=1))
    expected = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance) + np.trace(b.covariance)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_frechet_of_features_of_other_width():
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        frechet_distance(Gaussian(np.zeros(2), np.eye(2)), Gaussian(np.zeros(3), np.eye(3)))


def test_inception_score_of_sure_and_of_unsure_networks():
    sure = np.eye(5).repeat(20, axis=0) * 100.0
    assert inception_score(sure, splits=1).mean == pytest.approx(5)
    assert inception_score(np.zeros((100, 5))).mean == pytest.approx(1)
    assert inception_score(np.zeros((100, 5))).std == pytest.approx(0)
    # In the order of classes, each of five splits holds only one class.
    assert inception_score(sure, splits=5, seed=None).mean == pytest.approx(1)
    assert inception_score(sure, splits=5).mean > 4


def test_inception_score_by_the_definition():
    logits = np.random.default_rng(0).normal(size=(23, 6)).astype(np.float32) * 3
    shuffled = logits[np.random.RandomState(2020).permutation(23)].astype(np.float64)
    p = np.exp(shuffled) / np.exp(shuffled).sum(axis=1, keepdims=True)
    scores = []
    for part in (p[0:7], p[7:15], p[15:23]):
        divergence = (part * np.log(part / part.mean(axis=0))).sum(axis=1)
        scores.append(np.exp(divergence.mean()))
    assert inception_score(logits, splits=3) == pytest.approx((np.mean(scores), np.std(scores)))


def test_kernel_distance_by_the_definition():
    x, y = features(9, 4, 0), features(11, 4, 1)
    draws = np.random.RandomState(2020)
    values = []
    for _ in range(2):
        a, b = x[draws.choice(9, 5, replace=False)], y[draws.choice(11, 5, replace=False)]
        within = sum((s[i] @ s[j] / 4 + 1) ** 3 for s in (a, b) for i in range(5) for j in range(5) if i != j)
        across = sum((i @ j / 4 + 1) ** 3 for i in a for j in b)
        values.append(within / 20 - 2 * across / 25)
    found = kernel_distance(x, y, subsets=2, subset_size=5)
    assert found == pytest.approx((np.mean(values), np.std(values)))


def test_kernel_distance_is_about_zero_between_samples_of_one_law():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(2, 600, 8))
    same, other = (kernel_distance(x, y + shift, subsets=20, subset_size=200) for shift in (0, 1))
    assert abs(same.mean) < 0.1 * other.mean


def test_too_few_images():
    with pytest.raises(UserError, match="into 10 parts; there are only 9 images"):
        inception_score(np.zeros((9, 3)))
    with pytest.raises(UserError, match="subsets of 1000 images, but one set has only 900"):
        kernel_distance(np.zeros((1000, 3)), np.zeros((900, 3)))
