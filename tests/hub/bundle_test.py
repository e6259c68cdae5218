import json
import shutil

import flax.linen as nn
import jax
import numpy as np
import pytest

from tests.support.configs import tiny_config
from tests.support.latents import TINY, photo_config, save_tiny_weights
from tests.support.students import student_config
from transdiff_jax.checkpoints.weights import Weights, load_weights
from transdiff_jax.config import MeshConfig, make_config
from transdiff_jax.errors import UserError
from transdiff_jax.hub.bundle import read_bundle, without_paths, write_bundle
from transdiff_jax.model.params import init_params
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.tokenizer.kl16_weights import load_tokenizer

safetensors = pytest.importorskip("safetensors.numpy")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    config = photo_config(save_tiny_weights(tmp_path_factory.mktemp("kl16") / "weights"))
    shapes = nn.unbox(jax.eval_shape(lambda: init_params(config.model, 0)))
    draw = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: draw.normal(size=leaf.shape).astype(leaf.dtype), shapes)
    return Weights(config, params, "ema 0.9", 3, "0" * 64, ("china", "flower"))


@pytest.fixture(scope="module")
def bundle(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    write_bundle(weights, folder)
    return folder


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "copy")


def read(bundle, folder):
    read_bundle(lambda name: bundle / name, folder / "run", folder / "tokenizer")


def test_a_run_with_a_tokenizer_comes_back(bundle, weights, tmp_path):
    read(bundle, tmp_path)
    found = load_weights(tmp_path / "run", make_mesh(MeshConfig(), jax.devices()[:1]))
    jax.tree.map(np.testing.assert_array_equal, found.params, weights.params)
    assert (found.name, found.step, found.class_names) == (weights.name, weights.step, weights.class_names)
    assert found.config.tokenizer.weights == str(tmp_path / "tokenizer")
    assert load_tokenizer(tmp_path / "tokenizer", "float32", 1).config == TINY


@pytest.mark.parametrize(
    "config",
    [
        student_config(),
        tiny_config(data={"source": "folder:/"}),
        tiny_config(
            data={"source": "latents:.", "groups": "index:/a/b", "image_size": 64},
            tokenizer={"kind": "kl16", "weights": "/c"},
        ),
    ],
)
def test_a_configuration_without_folders_is_one_still(config):
    published = without_paths(config, "ema 0.9")
    assert make_config(published.to_dict()) == published
    assert "/" not in published.data.source + published.data.groups + published.tokenizer.weights
    assert published.train.init_from in ("", "unnamed")


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("tokenizer.json", {"multipliers": []}, r"tokenizer\.json does not hold the sizes of an autoencoder"),
        ("tokenizer.json", {"multipliers": [1] * 60}, r"tokenizer\.json does not hold the sizes of an autoencoder"),
        ("tokenizer.json", {"width": 64}, r"tokenizer\.safetensors: .* but its configuration asks for .*64"),
        ("config.json", {"class_names": ["china"]}, r"config\.json names 1 of 2 classes"),
        ("config.json", {"step": 2**40}, "has no step"),
    ],
)
def test_what_does_not_fit_is_refused(copy, tmp_path, name, changed, message):
    (copy / name).write_text(json.dumps(json.loads((copy / name).read_text()) | changed))
    with pytest.raises(UserError, match=message):
        read(copy, tmp_path)
    assert not (tmp_path / "tokenizer").exists()


def test_arrays_of_other_names_are_refused(copy, tmp_path):
    path = copy / "tokenizer.safetensors"
    safetensors.save_file({**safetensors.load_file(path), "../../outside": np.zeros(3, np.float32)}, path)
    with pytest.raises(UserError, match=r"tokenizer\.safetensors: \.\./\.\./outside is .*, but its configuration"):
        read(copy, tmp_path)
