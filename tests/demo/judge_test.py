import dataclasses

import numpy as np
import pytest

from tests.support.configs import tiny_config
from transdiff_jax.data.sources.open import open_source
from transdiff_jax.demo.judge import DigitsJudge


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_config(data={"directory": str(tmp_path_factory.mktemp("data"))}).data


@pytest.fixture(scope="module")
def judge(data):
    return DigitsJudge(data)


@pytest.fixture(scope="module")
def held_out(data):
    source = open_source(dataclasses.replace(data, split="test"))
    return np.stack([source[i]["image"] for i in range(len(source))]), source.labels()


def test_real_digits_agree_with_their_labels(judge, held_out):
    images, labels = held_out
    assert judge.class_agreement(images, labels) == judge.classifier_accuracy
    assert judge.classifier_accuracy > 0.97
    assert judge.class_agreement(images, (labels + 1) % 10) < 0.05


def test_frechet_ranks_real_noisy_and_random_images(judge, held_out):
    images, _ = held_out
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, images.shape).astype(np.uint8)
    noisy = np.where(generator.random(images.shape) < 0.2, noise, images)
    assert judge.frechet(images) == pytest.approx(0, abs=1e-6)
    assert judge.frechet_floor < judge.frechet(noisy) < judge.frechet(noise)


def test_a_collapsed_generator_is_far_away(judge, held_out):
    images, labels = held_out
    ones = np.repeat(images[labels == 1][:1], 200, axis=0)
    assert judge.frechet(ones) > 10 * judge.frechet_floor
