import dataclasses
import functools

import jax
import numpy as np
import pytest

from tests.support.students import student_config
from transdiff_jax.distillation.draws import anchors, draw_guidance, draw_jumps, draw_path_jumps, draw_times
from transdiff_jax.distillation.teacher import PATH_TIMES

TOKENS, CHANNELS = 16, 4


def test_draws_are_a_function_of_seed_and_step():
    config = student_config()
    draw = functools.partial(draw_jumps, config.model, config.loss, config.distillation, 8)
    first, again, later = draw(0, 5), draw(0, 5), draw(0, 6)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first.noise, later.noise)
    assert not np.array_equal(first.t, later.t)


def test_times_are_ordered_with_their_shares_at_the_ends():
    shares = dataclasses.replace(student_config().distillation, noise_end_share=0.3, data_end_share=0.2)
    t, r = (np.asarray(values) for values in draw_times(jax.random.key(0), shares, (20_000,)))
    assert (t >= r).all() and t.min() >= 0.001 and t.max() == 1 and r.min() == 0
    np.testing.assert_allclose([np.mean(t == 1), np.mean(r == 0)], [0.3, 0.2], atol=0.02)
    # The larger of two uniform times has the mean 2/3.
    np.testing.assert_allclose(t[t < 1].mean(), 2 / 3, atol=0.02)


def test_anchors_come_first_and_have_no_length():
    config = student_config(loss={"pairs_per_latent": 4}, distillation={"anchor_share": 0.25})
    assert anchors(config.distillation, config.loss) == 1
    draws = draw_jumps(config.model, config.loss, config.distillation, 500, 0, 0)
    assert (draws.t[:, :, 0] == draws.r[:, :, 0]).all()
    assert np.mean(draws.t[:, :, 1:] > draws.r[:, :, 1:]) > 0.99


def test_weights_are_fixed_or_uniform_in_their_range():
    fixed = draw_guidance(jax.random.key(0), (1.3,), (5,))
    np.testing.assert_allclose(fixed, 1.3, rtol=1e-6)
    drawn = np.asarray(draw_guidance(jax.random.key(0), (1.0, 2.5), (10_000,)))
    assert drawn.min() >= 1 and drawn.max() <= 2.5
    np.testing.assert_allclose(drawn.mean(), 1.75, atol=0.02)


def test_jumps_on_paths_go_forward_with_their_shares_at_the_ends():
    config = student_config(distillation={"objective": "trajectory"})
    draws = draw_path_jumps(config.model, config.loss, config.distillation, 5000, 0, 0)
    start, end, last = np.asarray(draws.start), np.asarray(draws.end), len(PATH_TIMES) - 1
    assert (start < end).all() and start.min() == 0 and start.max() == last - 1 and end.max() == last
    assert np.mean(start == 0) == pytest.approx(0.3 + 0.7 / last, abs=0.02)
    assert draws.noise.shape == (5000, 1, TOKENS, CHANNELS)
