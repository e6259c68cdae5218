import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.paths import GOLDEN
from transdiff_jax.errors import UserError
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.verification.check import relative_error
from transdiff_jax.verification.golden import GoldenFile
from transdiff_jax.verification.transdiff_checks import (
    check_loss,
    check_network,
    compare_gradients,
    compare_norms,
    meaningful,
    subject,
)

FILES = ["one_step_256_a", "mrar_256_a", "one_step_512_a"]


def assert_all_ok(checks, count):
    assert len(checks) == count
    assert not [check for check in checks if not check.ok]


@pytest.mark.parametrize("name", FILES)
def test_features_and_velocities(name):
    file = GoldenFile(GOLDEN / f"{name}.npz")
    model = subject(file)
    assert_all_ok(check_network(file, model), 5 if model.model.config.num_images > 1 else 2)


@pytest.mark.parametrize("name", ["one_step_256_a", "mrar_256_a"])
def test_losses_and_gradients(name):
    file = GoldenFile(GOLDEN / f"{name}.npz")
    model = subject(file)
    assert_all_ok(check_loss(file, model, "loss"), 5)
    assert_all_ok(check_loss(file, model, "loss_dropped"), 3)


def test_a_small_difference_in_one_layer_is_found():
    file = GoldenFile(GOLDEN / "one_step_512_a.npz")
    model = subject(file)
    params = jax.tree.map(lambda x: x, model.params)
    params["encoder"]["blocks"]["mlp"]["up"]["bias"] *= 1.001
    assert [check.ok for check in check_network(file, model._replace(params=params))] == [False, False]


def test_exchanged_dropping_is_found():
    file = GoldenFile(GOLDEN / "one_step_256_a.npz")
    model = subject(file)
    other = model._replace(labels=model.labels[::-1])
    assert not check_loss(file, other, "loss")[0].ok
    assert check_loss(file, other, "loss_dropped")[0].ok


def test_bfloat16_velocity_stays_close_to_float32():
    file = GoldenFile(GOLDEN / "mrar_256_a.npz")
    model = subject(file)
    half = TransDiff(dataclasses.replace(model.model.config, dtype="bfloat16"))
    null = jnp.zeros_like(model.labels, bool)

    @jax.jit
    def velocity(params):
        x_t, timesteps = (jnp.asarray(file[f"input/{name}"])[:, None] for name in ("x_t", "timesteps"))
        return half.apply({"params": params}, model.labels, null, model.latents[:, :-1], x_t, timesteps)[:, 0]

    error = relative_error(velocity(model.params), file["output/velocity"])
    assert 1e-4 < error < 3e-2


def test_key_biases_are_not_compared_and_everything_else_is():
    gradients = {"b.attn.qkv.bias": np.arange(6.0), "b.attn2.wk.bias": np.ones(2), "b.norm.bias": np.full(2, 1e-6)}
    noisy = gradients | {"b.attn.qkv.bias": np.array([0, 1, 9, 9, 4, 5.0]), "b.attn2.wk.bias": np.zeros(2)}
    assert all(check.ok for check in compare_gradients("grad", noisy, gradients))
    kept = meaningful(gradients, gradients)
    assert list(kept) == ["b.attn.qkv.bias", "b.norm.bias"]
    np.testing.assert_array_equal(kept["b.attn.qkv.bias"], [0, 1, 4, 5])
    wrong = gradients | {"b.norm.bias": np.zeros(2)}
    assert [check.ok for check in compare_gradients("grad", wrong, gradients)] == [True, False]


def test_tensors_that_do_not_fit_fail_and_hide_no_others():
    ours = {"a.qkv.bias": np.arange(6.0), "b": np.ones(2)}
    for other in ({"c": np.ones(2)}, {"a.qkv.bias": np.ones(5)}, {"a.qkv.bias": np.ones(())}, {}):
        assert not any(check.ok for check in compare_gradients("grad", ours, other))
        assert not any(check.ok for check in compare_norms("norms", ours, other))
    norms = {"a.qkv.bias": np.array(np.sqrt(42)), "b": np.array(np.sqrt(2))}
    assert all(check.ok for check in compare_norms("norms", ours, norms))
    assert not compare_norms("norms", ours, norms | {"b": np.ones((1, 3))})[1].ok


def test_draws_of_another_batch_are_refused():
    file = GoldenFile(GOLDEN / "one_step_256_a.npz")
    model = subject(file)._replace(pairs=3)
    with pytest.raises(UserError, match=r"its array loss/timesteps must have the shape \[6\], not \[4\]"):
        check_loss(file, model, "loss")
