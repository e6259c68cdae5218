from functools import partial

import jax
import numpy as np
import pytest

from tests.support.paths import GOLDEN
from transdiff_jax.config import MeshConfig
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.features import FeatureExtractor, digest_images
from transdiff_jax.evaluation.inception.network import inception_features
from transdiff_jax.evaluation.metrics import frechet_distance
from transdiff_jax.evaluation.statistics import FeatureStatistics
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.verification.golden import GoldenFile
from transdiff_jax.verification.inception_checks import make_params

IMAGES = np.random.default_rng(0).integers(0, 256, (21, 6, 5, 3)).astype(np.uint8)
WEIGHTS = np.random.default_rng(1).normal(size=(6 * 5 * 3, 4)).astype(np.float32)
EXPECTED = np.tanh(IMAGES.reshape(21, -1) / 255 @ WEIGHTS)


def compute(params, images):
    flat = images.reshape(len(images), -1) / 255.0
    return {"a": jax.numpy.tanh(flat @ params), "b": flat.sum(axis=1, keepdims=True)}


def extract(mesh, batch_size, cuts=None):
    batches = np.split(IMAGES, range(batch_size, len(IMAGES), batch_size) if cuts is None else cuts)
    found = list(FeatureExtractor(compute, WEIGHTS, mesh, batch_size)(batches))
    assert [len(extracted.digests) for extracted in found] == [len(batch) for batch in batches]
    return jax.tree.map(lambda *rows: np.concatenate(rows), *found)


@pytest.mark.parametrize("batch_size", [8, 16, 24])
@pytest.mark.parametrize("mesh", [{}, {"data": 2, "fsdp": 4}, {"tensor": 2}], ids=str)
def test_batch_devices_and_cuts_change_nothing(batch_size, mesh):
    mesh = make_mesh(MeshConfig(**mesh))
    for cuts in (None, [1, 1, 9, 17], range(1, 21)):
        found = extract(mesh, batch_size, cuts)
        np.testing.assert_allclose(found.features["a"], EXPECTED, rtol=1e-5, atol=1e-6)
        assert found.features["b"].shape == (21, 1)
        np.testing.assert_array_equal(found.digests, digest_images(IMAGES))


def exact_statistics(devices, batch_size, order):
    """Statistics of features that float32 sums exactly, so that only the way to the statistics can differ."""
    weights = np.random.default_rng(2).integers(-8, 9, (6 * 5 * 3, 4)).astype(np.float32)
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])

    def project(params, images):
        return {"a": jax.numpy.dot(images.reshape(len(images), -1).astype(np.float32), params, precision="highest")}

    found = FeatureStatistics(4)
    batches = np.split(IMAGES[order], range(batch_size, len(IMAGES), batch_size))
    for extracted in FeatureExtractor(project, weights, mesh, batch_size)(batches):
        found.add(extracted.features["a"])
    return found.gaussian("a")


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("rows", [1, 3])
def test_statistics_and_distances_are_those_of_any_devices_batch_and_order(devices, rows):
    order = np.random.default_rng(10 * devices + rows).permutation(len(IMAGES))
    first, other = exact_statistics(1, 5, np.arange(len(IMAGES))), exact_statistics(devices, devices * rows, order)
    for ours, theirs in zip(other, first, strict=True):
        assert np.linalg.norm(ours - theirs) <= 1e-10 * np.linalg.norm(theirs)
    half = exact_statistics(1, 5, np.arange(11))
    assert frechet_distance(other, half) == pytest.approx(frechet_distance(first, half), rel=1e-10)


def test_one_device_takes_any_batch_size():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    np.testing.assert_allclose(extract(mesh, 5).features["a"], EXPECTED, rtol=1e-5, atol=1e-6)


def test_no_images_no_features():
    mesh = make_mesh(MeshConfig())
    assert list(FeatureExtractor(compute, WEIGHTS, mesh, 8)([])) == []


def test_a_batch_that_is_too_large():
    with pytest.raises(ValueError, match="9 images are more than a batch of 8"):
        list(FeatureExtractor(compute, WEIGHTS, make_mesh(MeshConfig()), 8)([IMAGES[:9]]))


def test_a_batch_that_does_not_split():
    with pytest.raises(UserError, match="inception_batch_size=12 must be divisible by 8"):
        FeatureExtractor(compute, WEIGHTS, make_mesh(MeshConfig()), 12)


@pytest.mark.slow
def test_inception_on_eight_devices_is_inception_on_one():
    params = make_params(GoldenFile(GOLDEN / "inception_a.npz"))
    names = ("2048", "spatial")
    found = []
    for devices, batch_size in ((1, 3), (8, 8)):
        mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
        extractor = FeatureExtractor(partial(inception_features, names=names), params, mesh, batch_size)
        batches = np.split(IMAGES[:8], range(batch_size, 8, batch_size))
        extracted = [batch.features for batch in extractor(batches)]
        found.append({name: np.concatenate([features[name] for features in extracted]) for name in names})
    for name in names:
        one, eight = (features[name] for features in found)
        assert one.shape == eight.shape == (8, one.shape[1])
        assert np.linalg.norm(one - eight) <= 1e-5 * np.linalg.norm(one)
    # The features of two images differ much more than those of one image on other devices.
    assert np.linalg.norm(found[0]["2048"][0] - found[0]["2048"][1]) > 1e-2 * np.linalg.norm(found[0]["2048"][0])
