import argparse
import os
import pickle
import sys

import numpy as np
import pytest

from tests.support.paths import GOLDEN
from transdiff_jax.errors import UserError
from transdiff_jax.storage import torch_file
from transdiff_jax.verification.golden import GoldenFile

torch = pytest.importorskip("torch")

FILES = ["one_step_256_a", "mrar_256_a", "one_step_512_a"]


class Hostile:
    """Creates a folder when a careless reader unpickles it."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("name", FILES)
def test_release_files_hold_the_rule_s_weights(name):
    checkpoint = torch_file.read_checkpoint(GOLDEN / f"{name}.pth")
    file = GoldenFile(GOLDEN / f"{name}.npz")
    assert checkpoint.model.shapes() == file.weight_shapes()
    assert checkpoint.args["img_size"] == file.config["img_size"]
    for key, weight in file.weights().items():
        np.testing.assert_array_equal(checkpoint.model[key], weight)
        np.testing.assert_array_equal(checkpoint.ema[key], 0.5 * weight)


def test_tensors_are_views_of_the_mapped_file():
    checkpoint = torch_file.read_checkpoint(GOLDEN / "one_step_256_a.pth")
    assert np.shares_memory(checkpoint.model["class_emb.weight"], checkpoint.model["class_emb.weight"])


def test_half_precision_becomes_float32(tmp_path):
    torch.save({"model": {"a": torch.tensor([1.5, 2.0], dtype=torch.bfloat16)}}, tmp_path / "a.pth")
    checkpoint = torch_file.read_checkpoint(tmp_path / "a.pth")
    assert checkpoint.ema is None
    assert checkpoint.args == {}
    assert checkpoint.model["a"].dtype == np.float32
    np.testing.assert_array_equal(checkpoint.model["a"], [1.5, 2.0])


@pytest.mark.parametrize("content", [{"state_dict": {"a": torch.ones(2)}, "epoch": 3}, {"a": torch.ones(2)}])
@pytest.mark.parametrize("zipped", [True, False])
def test_other_layouts_of_a_dictionary(tmp_path, content, zipped):
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    np.testing.assert_array_equal(torch_file.read_checkpoint(tmp_path / "a.pth").model["a"], [1, 1])


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("layout", ["zip", "zip_in_args", "legacy", "raw_pickle"])
def test_hostile_pickles_are_refused_and_run_nothing(tmp_path, layout):
    target, path = tmp_path / "ran", tmp_path / "a.pth"
    hostile = Hostile(target)
    model = {"a": torch.ones(2)}
    if layout == "raw_pickle":
        path.write_bytes(pickle.dumps({"model": model, "args": hostile}))
    elif layout == "zip_in_args":
        torch.save({"model": model, "args": argparse.Namespace(model=hostile)}, path)
    else:
        torch.save({"model": model, "args": hostile}, path, _use_new_zipfile_serialization=layout == "zip")
    with pytest.raises(UserError, match=r"a\.pth is refused: .*could run code") as error:
        torch_file.read_checkpoint(path)
    assert "\n" not in str(error.value)
    assert not target.exists()
    if layout != "raw_pickle":
        torch.load(path, weights_only=False)
        assert target.exists(), "a careless reader must run the file's code, or the test shows nothing"


def change(position):
    content = bytearray((GOLDEN / "one_step_256_a.pth").read_bytes())
    content[position] ^= 4
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ((GOLDEN / "one_step_256_a.pth").read_bytes()[:500_000], "is damaged or cut short"),
        (change(400_000), r"is damaged: one_step_256_a/data/\d+ in it does not match its checksum"),
        (change(300), r"is damaged: one_step_256_a/data.pkl in it does not match"),
        (b"", r"is not a checkpoint, or damaged \(EOFError\)"),
        (b"hello there", "is not a checkpoint, or damaged"),
    ],
    ids=["truncated", "flipped_weight", "flipped_pickle", "empty", "text"],
)
def test_damaged_and_other_files_end_in_one_line(tmp_path, content, message):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.pth {message}") as error:
        torch_file.read_checkpoint(tmp_path / "a.pth")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "it holds a list, not a dictionary of tensors"),
        ({"model": {}}, "its 'model' is not a dictionary of tensors"),
        ({"model": {"a": torch.ones(2)}, "model_ema": 3}, "its 'model_ema' is not a dictionary"),
        ({"model": {"a": torch.ones(2), "b": 0.5}}, "'b' of its 'model' is not a tensor"),
    ],
)
def test_other_content_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UserError, match=message):
        torch_file.read_checkpoint(tmp_path / "a.pth")


def test_absent_file():
    with pytest.raises(UserError, match=r"nowhere\.pth: no such file"):
        torch_file.read_checkpoint("nowhere.pth")


def test_without_pytorch_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it raises
    with pytest.raises(UserError, match=r"a\.pth needs PyTorch, .* pip install torch"):
        torch_file.read_checkpoint(tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth needs PyTorch, .* pip install torch"):
        torch_file.write_checkpoint(tmp_path / "a.pth", {}, None, {})


def test_written_files_are_read_back(tmp_path):
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32([1.5])}
    tensors["a"].flags.writeable = False
    half = {name: 0.5 * tensor for name, tensor in tensors.items()}
    torch_file.write_checkpoint(tmp_path / "new" / "a.pth", tensors, half, {"heads": 4})
    checkpoint = torch_file.read_checkpoint(tmp_path / "new" / "a.pth")
    assert checkpoint.args == {"heads": 4}
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(checkpoint.model[name], tensor)
        np.testing.assert_array_equal(checkpoint.ema[name], half[name])


def test_files_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        torch_file.write_checkpoint(tmp_path / "file" / "a.pth", {"a": np.ones(1, np.float32)}, None, {})
