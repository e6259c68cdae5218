import errno
import json
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.support.paths import GOLDEN
from transdiff_jax.errors import UserError
from transdiff_jax.verification.golden import GoldenFile, rule_weight


def test_rule_by_hand():
    name, seed = "blocks.0.fc.weight", 7
    word = np.random.PCG64(zlib.crc32(name.encode()) + seed).random_raw()
    uniform = (int(word) // 2**53 - 1024) / 1024
    assert rule_weight(name, (5, 12), seed)[0, 0] == np.float32(uniform * 2 ** round(math.log2(math.sqrt(3 / 12))))


@pytest.mark.parametrize(
    ("name", "shape", "low", "high"),
    [
        ("a.weight", (64, 12), -0.5, 0.5),
        ("a.weight", (64, 3, 2, 2), -0.5, 0.5),
        ("norm.weight", (768,), 0.875, 1.125),
        ("a.bias", (768,), -0.25, 0.25),
        ("class_emb.weight", (64, 12), -0.25, 0.25),
        ("fake_weight", (64, 12), -0.25, 0.25),
    ],
)
def test_rule_ranges(name, shape, low, high):
    weights = rule_weight(name, shape, 1)
    assert weights.shape == shape
    assert weights.dtype == np.float32
    assert low <= weights.min() < low + 0.02 * (high - low)
    assert high - 0.02 * (high - low) < weights.max() < high


def test_a_tensor_without_axes_is_an_array():
    assert isinstance(rule_weight("logvar", (), 1), np.ndarray)
    assert rule_weight("logvar", (), 1).shape == ()


def test_weights_differ_by_name_and_seed():
    assert not np.array_equal(rule_weight("a.bias", (9,), 1), rule_weight("b.bias", (9,), 1))
    assert not np.array_equal(rule_weight("a.bias", (9,), 1), rule_weight("a.bias", (9,), 2))


def test_file_remembers_what_was_not_read(tmp_path):
    path = tmp_path / "a.npz"
    params = json.dumps({"seed": 1, "params": {"a.bias": [2]}})
    half = np.ones(2, np.float16)
    np.savez(path, config=json.dumps({"dim": 3}), torch_params=params, **{"in/x": half, "in/y": half, "out": half})
    file = GoldenFile(path)
    assert file.config == {"dim": 3}
    np.testing.assert_array_equal(file.weights()["a.bias"], rule_weight("a.bias", (2,), 1))
    assert file.unread() == ["in/x", "in/y", "out"]
    assert file["in/x"].dtype == np.float32
    assert "in/" in file
    assert "other/" not in file
    assert file.unread() == ["in/y", "out"]
    assert list(file.below("in/")) == ["x", "y"]
    with pytest.raises(UserError, match=r"a\.npz has no array in/z"):
        file["in/z"]


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        GoldenFile(tmp_path / "absent.npz")
    for name, content in {
        "empty": b"",
        "text": b"hello",
        "truncated": (GOLDEN / "kl16_a.npz").read_bytes()[:5000],
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{name} is not a golden file"):
            GoldenFile(path)
    np.savez(tmp_path / "plain.npz", x=np.ones(2))
    with pytest.raises(UserError, match="is not a golden file"):
        GoldenFile(tmp_path / "plain.npz")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"seed": 1}, "it has no 'params'"),
        ({"params": {"a": [2]}}, "it has no 'seed'"),
        ({"seed": "a", "params": {}}, "'a' is not a whole number"),
        ({"seed": True, "params": {}}, "True is not a whole number"),
        ({"seed": 2**80, "params": {}}, "is not a whole number of 64 bits"),
        ({"seed": 1, "params": {"a": 2}}, "its params are not shapes"),
        ({"seed": 1, "params": {"a": "23"}}, "its params are not shapes"),
        ({"seed": 1, "params": [[2]]}, "its params are not shapes"),
        ({"seed": 1, "params": {"a": ["2"]}}, "'2' is not a whole number"),
        ({"seed": 1, "params": {"a": [2.0]}}, "2.0 is not a whole number"),
        ({"seed": 1, "params": {"a": [-2, -3]}}, r"no network has a tensor of the shape \[-2, -3\] \(a\)"),
        ({"seed": 1, "params": {"a": [500_000, 500_000]}}, "no network has a tensor of the shape"),
        ({"seed": 1, "params": {str(i): [2**27] for i in range(65)}}, "more than any network"),
        ([1], "torch_params is no JSON object"),
        (None, "torch_params is no JSON object"),
    ],
)
def test_weights_that_no_rule_makes(tmp_path, params, message):
    np.savez(tmp_path / "a.npz", torch_params=json.dumps(params))
    with pytest.raises(UserError, match=rf"a\.npz is not a golden file, or is damaged: .*{message}") as caught:
        GoldenFile(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)


def test_texts_and_arrays_that_are_others(tmp_path):
    params = json.dumps({"seed": 1, "params": {}})
    for texts, message in (
        ({"torch_params": np.ones(3)}, "its torch_params is no text"),
        ({"torch_params": np.array([params, params])}, "its torch_params is no text"),
        ({"torch_params": "[" * 100_000}, "nested too deeply"),
        ({"torch_params": params, "config": "[" * 100_000}, "nested too deeply"),
        ({"torch_params": params, "config": "3"}, "its config is no JSON object"),
    ):
        np.savez(tmp_path / "a.npz", **texts)
        with pytest.raises(UserError, match=message):
            GoldenFile(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", torch_params=params, x=np.array("text"))
    with pytest.raises(UserError, match="its array x is of <U4, not of numbers"):
        GoldenFile(tmp_path / "a.npz")["x"]


def test_shapes_and_settings(tmp_path):
    texts = {"torch_params": json.dumps({"seed": 1, "params": {}}), "config": json.dumps({"a": 2, "b": 0, "c": "2"})}
    np.savez(tmp_path / "a.npz", **texts, x=np.ones((3, 2)), y=np.ones((3, 0)))
    file = GoldenFile(tmp_path / "a.npz")
    assert file.array("x", None, 2).shape == (3, 2)
    assert file.array("y", None, 0).shape == (3, 0)
    for name, *sizes in (("x", 3), ("x", 3, 3), ("x", None, None, 2), ("y", None, None), ("x",)):
        with pytest.raises(UserError, match=rf"its array {name} must have the shape \[.*\], not \[3, [02]\]$"):
            file.array(name, *sizes)
    assert file.setting("a") == 2
    for name in "bcd":
        with pytest.raises(UserError, match=f"the {name} of its config must be a whole number above 0, not "):
            file.setting(name)


def test_a_file_that_cannot_be_opened_is_not_called_damaged(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", torch_params=json.dumps({"seed": 1, "params": {}}))

    def refuse(path, *arguments):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)  # chmod does not stop root
    with pytest.raises(UserError, match=r"a\.npz cannot be read: Permission denied$"):
        GoldenFile(tmp_path / "a.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_bit(tmp_path, save):
    array = np.random.default_rng(0).normal(size=500)
    save(tmp_path / "a.npz", torch_params=json.dumps({"seed": 1, "params": {}}), x=array)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        member = archive.getinfo("x.npy")
    content[member.header_offset + member.compress_size // 2] ^= 4
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.npz: its array x is damaged \(.*\); copy the file again"):
        GoldenFile(tmp_path / "a.npz")["x"]
