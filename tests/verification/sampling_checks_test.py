import numpy as np
import pytest

from tests.support.paths import GOLDEN
from transdiff_jax.config import SamplingConfig
from transdiff_jax.verification.golden import GoldenFile
from transdiff_jax.verification.sampling_checks import check_sample, given_noise
from transdiff_jax.verification.transdiff_checks import subject


@pytest.mark.parametrize("section", ["sample_guided", "sample_unguided"])
@pytest.mark.parametrize("name", ["one_step_256_a", "mrar_256_a", "one_step_512_a"])
def test_trajectories(name, section):
    file = GoldenFile(GOLDEN / f"{name}.npz")
    (check,) = check_sample(file, subject(file), section)
    assert check.ok, check


def test_other_labels_are_found():
    file = GoldenFile(GOLDEN / "one_step_512_a.npz")
    model = subject(file)
    (check,) = check_sample(file, model._replace(labels=model.labels[::-1]), "sample_unguided")
    assert not check.ok


def test_noise_is_image_major_and_the_last_interval_has_none():
    file = GoldenFile(GOLDEN / "mrar_256_a.npz")
    drawn = file["sample_unguided/step_noise"]
    noise = given_noise(subject(file), SamplingConfig(steps=3), file["sample_unguided/init_noise"], drawn)
    assert noise.step_noise.shape == (4, 3, *drawn.shape[1:])
    np.testing.assert_array_equal(noise.step_noise[2, 1], drawn[5])
    np.testing.assert_array_equal(noise.step_noise[:, 2], 0)
