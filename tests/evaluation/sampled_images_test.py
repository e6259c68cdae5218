import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.configs import tiny_config
from tests.support.machines import shrink
from transdiff_jax.checkpoints.weights import Weights
from transdiff_jax.config import MeshConfig
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.sampled_images import sampled_images
from transdiff_jax.generation.request import SampleRequest
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.sampling.sampler import Sampler, Samples
from transdiff_jax.tokenizer.make import make_tokenizer

# cli/evaluate_test.py shows with a real sampler that these are the images of `transdiff sample`.

WEIGHTS = Weights(tiny_config(), {}, "ema 0.9", 7, "digest")
LABELS = tuple(range(10)) * 2
MESH = make_mesh(MeshConfig())


def sampler(bad=()):
    """Makes two images of each sample; the last one is the result and shows index and label."""

    @jax.jit
    def sample(weights, labels, seed, indices):
        last = jnp.stack([indices, labels], axis=1).astype(jnp.uint8)[:, None, :, None]
        images = jnp.stack([jnp.full_like(last, 99), last], axis=1)
        return Samples(images, ~jnp.isin(indices, jnp.array(bad, jnp.int32)))

    return Sampler(sample, make_tokenizer(WEIGHTS.config), MESH)


def stream(labels=LABELS, weights=WEIGHTS, **settings):
    return sampled_images(weights, SampleRequest(labels, seed=3), MESH, "a run", sampler(**settings))


def test_every_sample_once_and_in_order():
    images = stream()
    expected = np.stack([np.arange(20), LABELS], axis=1)[:, None, :, None]
    for size in (8, 5, 16, 1, 64):
        batches = list(images.batches(size))
        assert all(len(batch) == size for batch in batches[:-1])
        np.testing.assert_array_equal(np.concatenate(batches), expected)
    assert (images.source, images.labels, images.num_classes) == ("a run", list(LABELS), 10)
    assert images.record["settings"]["checkpoint_sha256"] == "digest"


def test_samples_that_are_not_finite():
    with pytest.raises(UserError, match="sample 9 holds values that are not finite: the weights may be damaged"):
        list(stream(bad=[9, 11]).batches(8))


def test_requests_that_cannot_work():
    with pytest.raises(UserError, match="class 10 does not exist"):
        stream(labels=(10,))
    config = dataclasses.replace(WEIGHTS.config, sampling=dataclasses.replace(WEIGHTS.config.sampling, batch_size=4))
    with pytest.raises(UserError, match="batch_size=4 must be divisible by 8"):
        stream(weights=dataclasses.replace(WEIGHTS, config=config))


def test_scores_whose_features_fit_no_memory_are_one_line(monkeypatch):
    shrink(monkeypatch, 2**30)
    with pytest.raises(UserError, match=r"^scoring takes at least 11\.4 GiB of host memory, .*features 11\.4 GiB"):
        stream(labels=(0,) * 10**6)


def test_batches_that_fit_no_device_are_one_line(monkeypatch):
    shrink(monkeypatch, 2**13)
    with pytest.raises(UserError, match=r"^sampling takes at least "):
        stream()
