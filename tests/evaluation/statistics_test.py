import logging

import numpy as np
import pytest

from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.statistics import BLOCK, FeatureStatistics, Gaussian, fit_gaussian

EXACT = 1e-10


def rows(count=3000, width=7, offset=1e4):
    """Float32 features whose mean is much larger than their spread."""
    draw = np.random.default_rng(0)
    return (offset + draw.normal(size=(count, width)) @ draw.normal(size=(width, width))).astype(np.float32)


def gaussian_of(features, batch):
    statistics = FeatureStatistics(features.shape[1])
    for start in range(0, len(features), batch):
        statistics.add(features[start : start + batch])
    assert statistics.count == len(features)
    return statistics.gaussian("a")


def assert_close(a: Gaussian, b: Gaussian, tolerance=EXACT):
    for ours, theirs in zip(a, b, strict=True):
        assert np.linalg.norm(ours - theirs) <= tolerance * np.linalg.norm(theirs)


def test_by_hand():
    gaussian = fit_gaussian(np.array([[0.0, 0.0], [2.0, 4.0]]), "a")
    np.testing.assert_allclose(gaussian.mean, [1, 2])
    np.testing.assert_allclose(gaussian.covariance, [[2, 4], [4, 8]])


def test_of_features_far_from_zero_it_is_numpys_in_more_digits():
    features = rows()
    centred = features.astype(np.longdouble) - features.astype(np.longdouble).mean(axis=0)
    exact = Gaussian(features.astype(np.longdouble).mean(axis=0), centred.T @ centred / (len(features) - 1))
    assert_close(gaussian_of(features, 500), exact)


@pytest.mark.parametrize("batch", [1, 64, BLOCK - 1, BLOCK, BLOCK + 1, 10_000])
def test_batches_change_nothing(batch):
    for ours, theirs in zip(gaussian_of(rows(), batch), gaussian_of(rows(), 100), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("seed", range(5))
def test_order_and_parts_change_nothing_but_rounding(seed):
    draw = np.random.default_rng(seed)
    features = rows()
    shuffled = features[draw.permutation(len(features))]
    whole = FeatureStatistics(features.shape[1])
    for part in np.split(shuffled, np.sort(draw.integers(0, len(features), 5))):
        statistics = FeatureStatistics(features.shape[1])
        statistics.add(part)
        before = statistics.count
        whole.merge(statistics)
        assert statistics.count == before
    assert whole.count == len(features)
    assert_close(whole.gaussian("a"), gaussian_of(features, 100))


def test_asking_twice_and_adding_after():
    features = rows(100)
    statistics = FeatureStatistics(7)
    statistics.add(features[:60])
    first = statistics.gaussian("a")
    assert_close(statistics.gaussian("a"), first, 0)
    statistics.add(features[60:])
    assert_close(statistics.gaussian("a"), gaussian_of(features, 100))


def test_the_callers_array_may_change_afterwards():
    features = rows(50).astype(np.float64)
    statistics = FeatureStatistics(7)
    statistics.add(features)
    features[:] = 0
    assert statistics.gaussian("a").mean.min() > 9000


@pytest.mark.parametrize(("count", "warned"), [(7, True), (8, False)])
def test_too_few_images_for_the_width(caplog, count, warned):
    with caplog.at_level(logging.WARNING, logger="absl"):
        covariance = fit_gaussian(rows(count), "samples").covariance
    assert (np.linalg.matrix_rank(covariance) < 7) == warned
    assert ("samples: 7 images for features of width 7: the covariance is singular" in caplog.text) == warned


def test_what_cannot_be():
    with pytest.raises(UserError, match="samples: a covariance needs at least 2 images, but there are 1"):
        fit_gaussian(rows(1), "samples")
    broken = rows(20)
    broken[3, 2] = np.nan
    with pytest.raises(UserError, match="samples: features are not finite"):
        fit_gaussian(broken, "samples")
    with pytest.raises(ValueError, match=r"\[n, 7\], got \(20, 6\)"):
        FeatureStatistics(7).add(rows(20, 6))
    with pytest.raises(ValueError, match="7 and 6"):
        FeatureStatistics(7).merge(FeatureStatistics(6))
