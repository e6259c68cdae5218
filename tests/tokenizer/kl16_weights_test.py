import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.configs import tiny_config
from transdiff_jax.config import MeshConfig, make_config
from transdiff_jax.errors import UserError
from transdiff_jax.model.params import abstract_params
from transdiff_jax.parallel import axes
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.sampling.sampler import make_sampler
from transdiff_jax.storage.checksums import write_manifest
from transdiff_jax.storage.files import write_json
from transdiff_jax.tokenizer import kl16
from transdiff_jax.tokenizer.kl16 import Kl16Autoencoder, Kl16Config, Kl16Tokenizer
from transdiff_jax.tokenizer.kl16_weights import SIZES, load_tokenizer, save_weights
from transdiff_jax.tokenizer.make import make_tokenizer
from transdiff_jax.tokenizer.pixels import PixelTokenizer
from transdiff_jax.training import step
from transdiff_jax.training.state import abstract_state

TINY = Kl16Config(width=32, multipliers=(1, 1, 1, 1, 1), blocks=1)
NO_SIZES = [("x", 1), ("width", "a"), ("width", 33), ("width", 0), ("width", 10**9), ("width", True), ("blocks", [1])]
NO_SIZES += [("multipliers", 5), ("multipliers", []), ("multipliers", [[1]]), ("attention_levels", [-1])]
OTHER_SIZES = [("width", 64), ("blocks", 2), ("attention_levels", []), ("latent_channels", 4)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kl16") / "weights"
    shapes = jax.eval_shape(Kl16Autoencoder(TINY).init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
    draw = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: draw.standard_normal(leaf.shape).astype(np.float32), shapes)
    save_weights(folder, params, TINY)
    return folder, params


def config_with(folder, **model):
    values = tiny_config().to_dict()
    values["model"] |= {"latent_channels": 16, **model}
    values["data"] |= {"image_size": 64, "image_channels": 3}
    values["tokenizer"] |= {"kind": "kl16", "weights": str(folder), "slice_size": 5, "dtype": "bfloat16"}
    return make_config(values)


def test_weights_come_back_as_they_were(saved):
    folder, params = saved
    tokenizer = load_tokenizer(folder, "float32", 4)
    assert (tokenizer.config, tokenizer.slice_size) == (TINY, 4)
    jax.tree.map(np.testing.assert_array_equal, tokenizer.params, params)


def test_a_changed_byte_is_found(saved, tmp_path):
    _, params = saved
    copy = tmp_path / "copy"
    save_weights(copy, params, TINY)
    largest = max((path for path in copy.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with pytest.raises(UserError, match=r"copy does not hold intact KL-16 weights \(.* has changed\)"):
        load_tokenizer(copy, "float32", 4)


def test_folders_that_cannot_be_used(saved, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        load_tokenizer(tmp_path / "absent", "float32", 4)
    with pytest.raises(UserError, match=r"manifest\.json is missing"):
        load_tokenizer(tmp_path, "float32", 4)
    with pytest.raises(UserError, match="is not empty"):
        save_weights(saved[0], saved[1], TINY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({name: value}, r"sizes\.json does not hold the sizes of an autoencoder") for name, value in NO_SIZES),
        *(({name: value}, "holds arrays of other names or sizes") for name, value in OTHER_SIZES),
    ],
)
def test_sizes_that_are_not_those_of_the_weights(saved, tmp_path, change, message):
    copy = shutil.copytree(saved[0], tmp_path / "copy")
    write_json(copy / SIZES, json.loads((copy / SIZES).read_text()) | change)
    write_manifest(copy)
    with pytest.raises(UserError, match=message):
        load_tokenizer(copy, "float32", 4)


def test_configuration_chooses_the_tokenizer(saved):
    assert make_tokenizer(tiny_config()) == PixelTokenizer(2)
    tokenizer = make_tokenizer(config_with(saved[0]))
    assert isinstance(tokenizer, Kl16Tokenizer)
    assert (tokenizer.slice_size, tokenizer.config.dtype) == (5, "bfloat16")


def test_slices_are_of_each_device(saved, monkeypatch):
    config, mesh, seen = config_with(saved[0]), make_mesh(MeshConfig(fsdp=2, tensor=2)), []

    def look(function, rows, size):
        seen.append((axes.row_shards(), size))
        return function(rows)

    monkeypatch.setattr(kl16, "map_slices", look)
    sampler, rows = make_sampler(config, mesh), jax.ShapeDtypeStruct((8,), jnp.int32)
    weights = sampler.tokenizer, abstract_params(config.model, mesh)
    sampler.jitted.eval_shape(weights, rows, jax.ShapeDtypeStruct((), jnp.int32), rows)
    batch = {"label": rows, "image": jax.ShapeDtypeStruct((8, 1, 64, 64, 3), jnp.uint8)}
    step.jit_train_step(config, mesh).eval_shape(abstract_state(config, mesh), batch, sampler.tokenizer)
    assert seen == [(4, 5), (4, 5)]


@pytest.mark.parametrize(
    ("folder", "model", "message"),
    [
        ("", {}, r"config\.tokenizer\.weights .* must name a folder"),
        (None, {"latent_channels": 4}, r"config\.model\.latent_channels=4 does not fit .* which has 16"),
    ],
)
def test_weights_must_fit_the_configuration(saved, folder, model, message):
    config = config_with(saved[0] if folder is None else folder, **model)
    with pytest.raises(UserError, match=message):
        make_tokenizer(config)


def test_latent_size_follows_from_the_factor(saved):
    with pytest.raises(UserError, match=r"config\.model\.latent_size=8 must be 4: images of 64 pixels"):
        config_with(saved[0], latent_size=8)
