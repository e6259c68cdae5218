import jax
import numpy as np
import pytest

from tests.support.paths import GOLDEN
from transdiff_jax.training import optimizer
from transdiff_jax.verification.check import relative_error_of_all
from transdiff_jax.verification.golden import GoldenFile
from transdiff_jax.verification.training_checks import check_training, run_steps, trained_tensors
from transdiff_jax.verification.transdiff_checks import subject

# Error of the change of three steps, relative to the change: a few elements with hardly any gradient move at random.
UPDATE = 1e-3


@pytest.mark.parametrize("name", ["one_step_256_a", "mrar_256_a"])
def test_three_steps(name):
    file = GoldenFile(GOLDEN / f"{name}.npz")
    model = subject(file)
    checks = check_training(file, model)
    assert [check.name for check in checks] == ["train/loss", "train/grad_norm", "train/param", "train/ema"]
    assert not [check for check in checks if not check.ok]
    jax.tree.map(np.asarray, model.params)  # raises if a step donated their memory


def error_of_the_update(name):
    file = GoldenFile(GOLDEN / f"{name}.npz")
    model = subject(file)
    _, state = run_steps(file, model)
    before, _ = trained_tensors(file, model, "train/param", model.params)
    ours, reference = trained_tensors(file, model, "train/param", state.params)
    return relative_error_of_all(
        *({name: after[name] - before[name] for name in before} for after in (ours, reference))
    )


@pytest.mark.parametrize("name", ["one_step_256_a", "mrar_256_a"])
def test_the_change_itself_agrees(name):
    assert error_of_the_update(name) < UPDATE


def test_decaying_the_decoder_is_found(monkeypatch):
    rules = ((optimizer.DECAY_RULES[0][0], True), *optimizer.DECAY_RULES[1:])
    monkeypatch.setattr(optimizer, "DECAY_RULES", rules)
    jax.clear_caches()
    error = error_of_the_update("one_step_256_a")
    jax.clear_caches()
    assert error > UPDATE
