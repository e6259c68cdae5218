import numpy as np
import pytest

from tests.support.paths import GOLDEN
from transdiff_jax.config import SamplingConfig
from transdiff_jax.errors import UserError
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


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("settings", np.ones(3), r"must have the shape \[4\], not \[3\]"),
        ("settings", np.full(4, np.nan), "must begin with the number of solver steps, not nan"),
        ("settings", np.full(4, np.inf), "must begin with the number of solver steps, not inf"),
        ("settings", np.array([1e9, 1, 1, 1]), r"step_noise must have the shape \[999999999, 2, 1024, 4\]"),
        ("init_noise", np.ones((2, 1024)), r"must have the shape \[2, 1024, 4\]"),
    ],
)
def test_settings_and_noise_of_another_run_are_refused(monkeypatch, name, value, message):
    file, array = GoldenFile(GOLDEN / "one_step_512_a.npz"), f"sample_guided/{name}"
    model, read = subject(file), GoldenFile.__getitem__
    monkeypatch.setattr(GoldenFile, "__getitem__", lambda self, key: value if key == array else read(self, key))
    with pytest.raises(UserError, match=message):
        check_sample(file, model, "sample_guided")
