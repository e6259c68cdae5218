import logging
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.support.slow import slow
from transdiff_jax.convert.conversion import import_inception
from transdiff_jax.convert.inception_names import name_table
from transdiff_jax.convert.table import from_reference, to_reference
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.inception.weights import PUBLISHED_SHA256, load_inception, save_inception
from transdiff_jax.storage.checksums import sha256
from transdiff_jax.tokenizer.kl16 import Kl16Config
from transdiff_jax.tokenizer.kl16_weights import save_weights
from transdiff_jax.verification.golden import GoldenFile, RuleWeights
from transdiff_jax.verification.inception_checks import inception_rule_weight

torch = pytest.importorskip("torch")

GOLDEN = "tests/golden/inception_a.npz"
COUNTERS = {"Conv2d_1a_3x3.bn.num_batches_tracked": (), "Mixed_7c.branch_pool.bn.num_batches_tracked": ()}
AUXILIARY = {"AuxLogits.conv0.conv.weight": (128, 768, 1, 1), "AuxLogits.fc.bias": (1008,)}


def write(path, **more):
    """Writes a bare dictionary of tensors, like both published files."""
    tensors = RuleWeights(name_table().reference_shapes(), 3, inception_rule_weight)
    tensors = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    torch.save(tensors | more, path)
    return tensors


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The folder with a file that holds leftovers of training and its conversion; the tensors; the name table."""
    folder = tmp_path_factory.mktemp("inception")
    leftovers = {name: torch.zeros(shape, dtype=torch.int64) for name, shape in (COUNTERS | AUXILIARY).items()}
    tensors = write(folder / "a.pth", **leftovers)
    table = import_inception(folder / "a.pth", folder / "out")
    return folder, tensors, table


def test_names_are_those_of_the_golden_file(pytestconfig):
    shapes = GoldenFile(pytestconfig.rootpath / GOLDEN).weight_shapes()
    assert name_table(shapes).reference_shapes() == shapes
    assert len(shapes) == 94 * 5 + 2


def test_there_and_back_in_memory():
    table = name_table()
    tensors = RuleWeights(table.reference_shapes(), 3, inception_rule_weight)
    back = to_reference(table, from_reference(table, tensors, "a"), {}, "a")
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)


def test_every_tensor_is_mapped_or_has_a_reason(converted):
    folder, tensors, table = converted
    assert {entry.reference for entry in table.entries} == {*tensors}
    assert {unused.reference: unused.shape for unused in table.unused} == COUNTERS | AUXILIARY
    weights = load_inception(folder / "out")
    assert (weights.file, weights.sha256) == ("a.pth", sha256(folder / "a.pth"))
    expected = from_reference(name_table(), {name: tensor.numpy() for name, tensor in tensors.items()}, "a")
    jax.tree.map(np.testing.assert_array_equal, weights.params, expected)


def test_folders_that_cannot_be_used(converted, tmp_path):
    folder, *_ = converted
    with pytest.raises(UserError, match=rf"is a file, .*--checkpoint={folder}/a\.pth --out={folder}/a$"):
        load_inception(folder / "a.pth")
    copy = shutil.copytree(folder / "out", tmp_path / "copy")
    (copy / "source.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"does not hold intact Inception weights \(source\.json has changed\); .* a new or empty"
    ):
        load_inception(copy)
    save_weights(tmp_path / "kl16", {"a": np.zeros(1)}, Kl16Config())
    with pytest.raises(UserError, match=r"does not hold intact Inception weights \(source\.json is missing\)"):
        load_inception(tmp_path / "kl16")
    with pytest.raises(UserError, match="is not empty"):
        save_inception(folder / "out", load_inception(folder / "out"))


@pytest.mark.parametrize(
    ("content", "problem", "file", "out"),
    [
        (None, "no such folder with the", "FILE.pth", "folder"),
        ([], "no converted", "FILE.pth", "folder"),
        (["a.pth", "b.pth"], "no converted", "folder/a.pth", "folder/converted"),
        (["weights"], "no converted", "FILE.pth", "folder/converted"),
    ],
)
def test_a_folder_without_converted_weights(tmp_path, monkeypatch, content, problem, file, out):
    """The line is a recipe whose command can be run."""
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("folder").mkdir()
        for name in content:
            Path("folder", name).touch()
    with pytest.raises(UserError) as error:
        load_inception(Path("folder"))
    assert str(error.value) == (
        f"folder: {problem} Inception weights; get https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth (SHA-256 "
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2), run: transdiff convert "
        f"--kind=inception --checkpoint={file} --out={out} and name {out} here"
    )


@pytest.mark.parametrize("published", [False, slow(True)])
def test_a_digest_that_is_not_the_published_one_is_reported(tmp_path, caplog, monkeypatch, published):
    digest = PUBLISHED_SHA256 if published else PUBLISHED_SHA256[:8] + "f" * 56
    monkeypatch.setattr("transdiff_jax.convert.conversion.sha256", lambda path: digest)
    write(tmp_path / "a.pth")
    with caplog.at_level(logging.WARNING, logger="absl"):
        import_inception(tmp_path / "a.pth", tmp_path / "out")
    assert load_inception(tmp_path / "out").sha256 == digest
    assert (f"has SHA-256 {digest}, but the published file has {PUBLISHED_SHA256}" in caplog.text) != published


def test_another_network_is_refused_and_nothing_is_written(tmp_path):
    write(tmp_path / "a.pth", **{"fc.weight": torch.zeros(1000, 2048)})
    with pytest.raises(UserError, match=r"fc\.weight of shape \(1000, 2048\) instead of \(1008, 2048\)"):
        import_inception(tmp_path / "a.pth", tmp_path / "out")
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "b.pth")
    with pytest.raises(UserError, match=r"b\.pth: 472 tensor\(s\) missing"):
        import_inception(tmp_path / "b.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()
