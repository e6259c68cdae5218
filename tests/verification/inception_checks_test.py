import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.paths import GOLDEN
from tests.support.slow import slow
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.inception.preprocess import resize
from transdiff_jax.verification import check_file
from transdiff_jax.verification.golden import GoldenFile
from transdiff_jax.verification.inception_checks import check_metrics, check_network, inception_rule_weight, make_params

FILE = GOLDEN / "inception_a.npz"
FEATURES = ("64", "192", "768", "2048", "logits_unbiased", "logits")


@pytest.fixture(scope="module")
def params():
    return make_params(GoldenFile(FILE))


def copy_with(target, keep=None, **changes):
    arrays = {name: array for name, array in np.load(FILE).items() if keep is None or name.startswith(keep)}
    np.savez(target, **arrays | {"torch_params": np.load(FILE)["torch_params"]} | changes)
    return GoldenFile(target)


def test_the_whole_file():
    checked = check_file.verify(FILE)
    assert checked["ok"]
    assert checked["unchecked"] == []
    names = ("resized_corner", "resized_mean", *FEATURES)
    scores = ("fid", "inception_score", "precision_recall", "kid")
    expected = {f"{size}/{name}" for size in ("size32", "size256") for name in names}
    assert {*checked["checks"]} == expected | {f"metrics/{name}" for name in scores}
    assert checked["max_relative_error"] < 2e-6
    assert max(checked["checks"][f"metrics/{name}"] for name in scores) < 1e-7


def test_other_image_sizes_and_less_than_all(tmp_path, params):
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 70, 50)).astype(np.uint8)
    mean = np.asarray(resize(jnp.asarray(images.transpose(0, 2, 3, 1)))).mean(axis=(1, 2, 3), dtype=np.float64)
    section = {"size70/input/image_uint8": images, "size70/output/resized_mean": mean}
    file = copy_with(tmp_path / "a.npz", "metrics/kid", **section)
    (check,) = check_network(file, params)
    assert check.ok
    assert check.name == "size70/resized_mean"
    assert file.unread() == ["metrics/kid"]


def test_arrays_of_other_shapes_are_refused(tmp_path, params):
    images = np.zeros((3, 2, 32, 32), np.uint8)
    with pytest.raises(UserError, match=r"input/image_uint8 must have the shape \[any, 3, any, any\]"):
        check_network(copy_with(tmp_path / "a.npz", "none", **{"size32/input/image_uint8": images}), params)
    features = {"metrics/kid": np.zeros(2), "metrics/features_real": np.zeros((9, 3))}
    for generated, message in (
        (np.zeros(9), r"\[any, any\], not \[9\]"),
        (np.zeros((9, 4)), r"\[any, 4\], not \[9, 3\]"),
    ):
        file = copy_with(tmp_path / "a.npz", "none", **features, **{"metrics/features_generated": generated})
        with pytest.raises(UserError, match=message):
            check_metrics(file)


@pytest.mark.parametrize(("block", "first"), [slow("mixed_5b", 2), ("mixed_7c", 3), slow("fc", 4)])
def test_a_small_difference_in_any_block_is_found(params, block, first):
    scaled = params | {block: jax.tree.map(lambda leaf: leaf * 1.001, params[block])}
    failed = {check.name for check in check_network(GoldenFile(FILE), scaled) if not check.ok}
    assert failed == {f"{size}/{name}" for size in ("size32", "size256") for name in FEATURES[first:]}


@pytest.mark.parametrize("name", ["fid", "inception_score", "precision_recall", "kid"])
def test_a_small_difference_in_a_score_is_found(tmp_path, name):
    key = f"metrics/{name}"
    file = copy_with(tmp_path / "a.npz", "metrics/", **{key: np.load(FILE)[key] * (1 + 2e-6)})
    assert [check.name for check in check_metrics(file) if not check.ok] == [key]


def test_scores_that_cannot_be_made_fail_and_the_others_are_shown(tmp_path, monkeypatch):
    few = {
        f"metrics/features_{name}": np.load(FILE)[f"metrics/features_{name}"][:150] for name in ("generated", "real")
    }
    file = copy_with(tmp_path / "few.npz", "metrics/", **few)
    checks = {check.name: check for check in check_metrics(file)}
    assert len(checks) == 4
    assert not checks["metrics/kid"].ok
    assert checks["metrics/kid"].reason == "KID draws subsets of 200 images, but one set has only 150"
    assert checks["metrics/inception_score"].ok
    monkeypatch.setattr(check_file.inception_checks, "check_network", lambda file, params: [])
    monkeypatch.setattr(check_file.inception_checks, "make_params", lambda file: {})
    arrays = {name: array for name, array in np.load(FILE).items() if name != "metrics/features_real"}
    np.savez(tmp_path / "without.npz", **arrays)
    checked = check_file.verify(tmp_path / "without.npz")
    assert checked["failed"] == ["metrics/fid", "metrics/precision_recall", "metrics/kid"]
    assert {*checked["reasons"].values()} == {"the file has no array metrics/features_real"}
    assert checked["reasons"].keys() == {*checked["failed"]}
    assert checked["checks"]["metrics/kid"] is None
    assert not checked["ok"]


def test_rule_by_hand():
    def uniform(name, seed):
        return (int(np.random.PCG64(zlib.crc32(name.encode()) + seed).random_raw()) // 2**53 - 1024) / 1024

    seed = json.loads(str(np.load(FILE)["torch_params"]))["seed"]
    for name, shape, scale, offset in (
        ("a.conv.weight", (2, 32, 1, 1), 0.5, 0),
        ("fc.weight", (2, 12), 0.5, 0),
        ("a.bn.weight", (4,), 1 / 8, 1),
        ("a.bn.running_var", (4,), 1 / 2, 1),
        ("a.bn.running_mean", (4,), 1 / 4, 0),
    ):
        weight = inception_rule_weight(name, shape, seed)
        assert weight.flat[0] == np.float32(offset + scale * uniform(name, seed)), name
        assert weight.shape == shape
