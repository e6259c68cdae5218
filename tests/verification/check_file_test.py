import json
import math

import numpy as np
import pytest

from tests.support.paths import GOLDEN
from transdiff_jax.errors import UserError
from transdiff_jax.verification import check_file
from transdiff_jax.verification.check import Check


def copy_with(path, target, **changes):
    arrays = dict(np.load(path))
    np.savez(target, **arrays | changes)
    return target


def test_everything_of_a_file_is_checked():
    checked = check_file.verify(GOLDEN / "one_step_512_a.npz")
    assert checked["ok"]
    assert checked["unchecked"] == []
    assert list(checked["checks"]) == [
        "output/semantic_features",
        "output/velocity",
        "sample_guided/latents",
        "sample_unguided/latents",
    ]
    assert checked["max_relative_error"] == max(checked["checks"].values()) < 1e-5


def test_a_difference_and_an_unknown_array_are_reported(tmp_path):
    path = GOLDEN / "kl16_a.npz"
    decoded = np.load(path)["output/decoded"]
    changed = copy_with(path, tmp_path / "a.npz", **{"output/decoded": decoded * 1.001, "output/other": decoded})
    checked = check_file.verify(changed)
    assert not checked["ok"]
    assert checked["failed"] == ["output/decoded"]
    assert checked["unchecked"] == ["output/other"]


def test_errors_that_are_not_finite_fail_and_stay_json(monkeypatch):
    for error in (math.nan, math.inf):
        checks = [Check("a", 1e-7, 1e-5), Check("b", error, 1e-5)]
        monkeypatch.setattr(check_file, "_NETWORKS", {"post_quant_conv.weight": lambda file, checks=checks: checks})
        checked = json.loads(json.dumps(check_file.verify(GOLDEN / "kl16_a.npz"), allow_nan=False))
        assert not checked["ok"]
        assert checked["max_relative_error"] is None
        assert checked["checks"] == {"a": 1e-7, "b": None}


def test_no_checks_are_not_ok(monkeypatch):
    monkeypatch.setattr(check_file, "_NETWORKS", {"post_quant_conv.weight": lambda file: []})
    assert not check_file.verify(GOLDEN / "kl16_a.npz")["ok"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"torch_params": json.dumps({"seed": 1, "params": {"a": [1]}})}, "there are no checks for its network"),
        ({"config": json.dumps({"ch": 64})}, "its config says ch=64, its tensors say 32"),
    ],
)
def test_files_of_something_else_are_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        check_file.verify(copy_with(GOLDEN / "kl16_a.npz", tmp_path / "a.npz", **changes))


def test_contradicting_model_config_is_refused(tmp_path):
    path = GOLDEN / "one_step_512_a.npz"
    config = json.loads(str(np.load(path)["config"])) | {"classes": 1000}
    with pytest.raises(UserError, match="its config says classes=1000, its tensors say 10"):
        check_file.verify(copy_with(path, tmp_path / "a.npz", config=json.dumps(config)))


@pytest.mark.parametrize(
    ("name", "array", "change"),
    [
        ("kl16_a", "input/image", lambda x: x[0]),
        ("kl16_a", "input/image", lambda x: x[:, :2]),
        ("kl16_a", "input/image", lambda x: x[:0]),
        ("kl16_a", "input/image", lambda x: x[:, :, :9]),
        ("one_step_512_a", "input/images", lambda x: x[..., :9]),
        ("one_step_512_a", "input/labels", lambda x: x[:1]),
        ("one_step_512_a", "input/labels", lambda x: x + 0.5),
        ("one_step_512_a", "input/labels", lambda x: x + 10),
        ("one_step_512_a", "input/x_t", lambda x: x[0]),
        ("one_step_512_a", "input/timesteps", lambda x: x[None]),
    ],
)
def test_arrays_of_other_shapes_are_refused(tmp_path, name, array, change):
    changed = copy_with(
        GOLDEN / f"{name}.npz", tmp_path / "a.npz", **{array: change(np.load(GOLDEN / f"{name}.npz")[array])}
    )
    with pytest.raises(UserError, match=f"a.npz: its array {array} must "):
        check_file.verify(changed)
