"""Few-step students in the sampler: one pass a jump, the weight inside the network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.parameters import random_params
from tests.support.slow import slow
from tests.support.students import student_config
from transdiff_jax.benchmark.flops import evaluations
from transdiff_jax.model.decoder import Jump
from transdiff_jax.model.params import applied
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.sampling.fusion import draw_splice
from transdiff_jax.sampling.mrar import sample_latents
from transdiff_jax.sampling.naive import naive_latents
from transdiff_jax.sampling.noise import SeededNoise

LABELS = np.array([3, 0, 9, 3], np.int32)
NOISE = SeededNoise(jnp.int32(0), jnp.arange(4))


@functools.partial(jax.jit, static_argnames=("sample", "config", "fused"))
def latents_of(sample, config, params, fused=False):
    model = TransDiff(config.model)
    if not fused:
        return sample(model, params, jnp.asarray(LABELS), NOISE, config.sampling)
    splice = draw_splice(config.model, jnp.int32(0), jnp.arange(4), 0.5)
    return sample(model, params, jnp.stack([LABELS, LABELS[::-1]], axis=1), NOISE, config.sampling, splice)


@pytest.mark.parametrize(
    "sampling",
    [
        {"steps_by_image": (1, 1, 2, 3), "guidance": (1.0, 1.2, 1.2, 2.0)},
        slow({"solver": "heun", "guidance_schedule": "linear"}),
    ],
    ids=["jumps", "velocities"],
)
def test_a_sequence_is_that_of_the_naive_sampler(sampling):
    config = student_config(True, sampling=sampling)
    params = random_params(config.model)
    ours, naive = (latents_of(sample, config, params) for sample in (sample_latents, naive_latents))
    np.testing.assert_allclose(ours, naive, atol=2e-4 * np.abs(naive).max())
    assert evaluations(config.sampling.of_images(4)[3], True)[0] == 0


def test_a_sequence_goes_on_from_given_images():
    config = student_config(True, sampling={"steps": 1, "guidance": (1.5,)})
    model, params = TransDiff(config.model), random_params(config.model)
    expected = latents_of(sample_latents, config, params)
    made = jax.jit(lambda given: sample_latents(model, params, LABELS, NOISE, config.sampling, None, given))(
        expected[:, :3]
    )
    np.testing.assert_allclose(made, expected, atol=1e-4 * np.abs(expected).max())


def test_two_classes_are_fused():
    config = student_config()
    params = random_params(config.model)
    ours, naive = (latents_of(sample, config, params, fused=True) for sample in (sample_latents, naive_latents))
    np.testing.assert_allclose(ours, naive, atol=2e-4 * np.abs(naive).max())
    assert np.abs(ours - latents_of(sample_latents, config, params)).max() > 1e-2


def test_one_pass_is_one_jump_from_noise_to_data():
    config = student_config(sampling={"steps": 1, "guidance": (1.7,)})
    model, params = TransDiff(config.model), random_params(config.model)
    made = latents_of(sample_latents, config, params)
    features = applied(model, params, TransDiff.encode)(jnp.asarray(LABELS), jnp.zeros(4, bool), None).features
    noise = NOISE.initial((16, 4))
    ones = jnp.ones((4, 1))
    jump = applied(model, params, TransDiff.velocity)(
        noise[:, None], 1000 * ones, applied(model, params, TransDiff.condition)(features), None, Jump(ones, 1.7 * ones)
    )
    np.testing.assert_allclose(made[:, 0].reshape(4, 16, 4), noise - jump[:, 0], atol=1e-4)
