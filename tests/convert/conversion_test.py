import argparse
import dataclasses
import logging

import jax
import numpy as np
import pytest

from tests.support.configs import tiny_config
from tests.support.paths import GOLDEN
from transdiff_jax.checkpoints.record import RunRecord
from transdiff_jax.checkpoints.store import CheckpointStore
from transdiff_jax.checkpoints.weights import load_weights
from transdiff_jax.config import MeshConfig, ModelConfig, make_config
from transdiff_jax.convert import kl16_names, transdiff_names
from transdiff_jax.convert.conversion import (
    RELEASE_FILE,
    export_kl16,
    export_transdiff,
    import_kl16,
    import_transdiff,
)
from transdiff_jax.convert.table import from_reference
from transdiff_jax.errors import UserError
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.sampling.sampler import make_sampler
from transdiff_jax.tokenizer.kl16 import Kl16Config
from transdiff_jax.tokenizer.kl16_weights import load_tokenizer
from transdiff_jax.training.finetune import adapt_params
from transdiff_jax.training.start import start
from transdiff_jax.training.state import create_state
from transdiff_jax.verification.golden import GoldenFile, RuleWeights

torch = pytest.importorskip("torch")

TINY = ModelConfig(
    width=16,
    heads=2,
    encoder_blocks=1,
    decoder_blocks=2,
    num_classes=3,
    class_tokens=2,
    tokens_per_image=16,
    latent_size=4,
    latent_channels=16,
)
TINY_KL16 = Kl16Config(width=32, multipliers=(1, 1, 1, 1, 1), blocks=1)


def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


def read(path):
    return torch.load(path, weights_only=False)


def write(path, table, ema=True, change=None, **more):
    """Writes a file of the release with rule weights; returns the tensors."""
    tensors = {name: torch.from_numpy(w) for name, w in RuleWeights(table.reference_shapes(), seed=1).items()}
    content = {"model": tensors, **more}
    if ema:
        content["model_ema"] = {name: 0.5 * tensor for name, tensor in tensors.items()}
    if change:
        change(content)
    torch.save(content, path)
    return tensors


@pytest.mark.parametrize("name", ["one_step_256_a", "mrar_256_a", "one_step_512_a"])
def test_golden_checkpoints_there_and_back(tmp_path, name):
    source = GOLDEN / f"{name}.pth"
    file = GoldenFile(GOLDEN / f"{name}.npz")
    import_transdiff(source, tmp_path / "run", heads=file.config["heads"])
    raw, ema = (load_weights(tmp_path / "run", mesh(), kind=kind) for kind in ("raw", "ema"))
    assert raw.config.model == transdiff_names.infer_model(file.weight_shapes(), name, file.config["heads"])
    assert raw.config.data.image_size == file.config["img_size"]
    expected = from_reference(transdiff_names.name_table(raw.config.model), file.weights(), name)
    jax.tree.map(np.testing.assert_array_equal, raw.params, expected)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, 0.5 * b), ema.params, expected)

    export_transdiff(tmp_path / "run", tmp_path / "back.pth")
    before, after = read(source), read(tmp_path / "back.pth")
    for part in ("model", "model_ema"):
        assert list(before[part]) or list(after[part])
        assert {*before[part]} == {*after[part]}
        for key, tensor in before[part].items():
            assert after[part][key].dtype == tensor.dtype
            assert torch.equal(after[part][key], tensor), key
    assert after["args"] == argparse.Namespace(img_size=file.config["img_size"], heads=file.config["heads"])


def test_export_of_a_converted_run_needs_no_flags_to_come_back(tmp_path):
    write(tmp_path / "a.pth", transdiff_names.name_table(TINY))
    import_transdiff(tmp_path / "a.pth", tmp_path / "run", heads=4)
    export_transdiff(tmp_path / "run", tmp_path / "release")
    import_transdiff(tmp_path / "release" / RELEASE_FILE, tmp_path / "again")
    assert load_weights(tmp_path / "again", mesh()).config.model == dataclasses.replace(TINY, heads=4)


def test_without_an_average_the_model_replaces_it_with_a_warning(tmp_path, caplog):
    write(tmp_path / "a.pth", transdiff_names.name_table(TINY), ema=False)
    with caplog.at_level(logging.WARNING, logger="absl"):
        import_transdiff(tmp_path / "a.pth", tmp_path / "run", heads=2)
    assert "has no model_ema" in caplog.text
    raw, ema = (load_weights(tmp_path / "run", mesh(), kind=kind) for kind in ("raw", "ema"))
    jax.tree.map(np.testing.assert_array_equal, raw.params, ema.params)


@pytest.mark.parametrize(
    ("width", "noted", "given", "heads", "warned"),
    [(16, {}, 4, 4, False), (16, {"heads": 8}, None, 8, False), (128, {}, None, 2, True), (16, {}, None, 1, True)],
    ids=["given", "noted", "assumed", "assumed_one"],
)
def test_heads(tmp_path, caplog, width, noted, given, heads, warned):
    table = transdiff_names.name_table(dataclasses.replace(TINY, width=width))
    write(tmp_path / "a.pth", table, args=argparse.Namespace(**noted))
    with caplog.at_level(logging.WARNING, logger="absl"):
        import_transdiff(tmp_path / "a.pth", tmp_path / "run", heads=given)
    assert load_weights(tmp_path / "run", mesh()).config.model.heads == heads
    assert ("--heads" in caplog.text) == warned


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["model"].update(extra=torch.ones(1)), r"a\.pth: 1 tensor\(s\) of unknown name: extra"),
        (lambda c: c["model"].pop("encoder_norm.bias"), r"missing: encoder_norm\.bias"),
        (lambda c: c["model_ema"].pop("encoder_norm.bias"), r"\(model_ema\): 1 tensor\(s\) missing"),
        (lambda c: c["model"].update(fake_latent=torch.ones(2, 16)), r"fake_latent of shape \(2, 16\) instead"),
    ],
    ids=["left_over", "missing", "missing_in_average", "shape"],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path, change, message):
    write(tmp_path / "a.pth", transdiff_names.name_table(TINY), change=change)
    with pytest.raises(UserError, match=message):
        import_transdiff(tmp_path / "a.pth", tmp_path / "run", heads=2)
    assert not (tmp_path / "run").exists()


def test_a_taken_workdir_is_left_alone(tmp_path):
    write(tmp_path / "a.pth", transdiff_names.name_table(TINY))
    import_transdiff(tmp_path / "a.pth", tmp_path / "run", heads=2)
    with pytest.raises(UserError, match="already holds checkpoints"):
        import_transdiff(tmp_path / "a.pth", tmp_path / "run", heads=4)
    assert load_weights(tmp_path / "run", mesh()).config.model.heads == 2


def test_a_converted_run_is_fine_tuned_but_not_resumed(tmp_path):
    write(tmp_path / "a.pth", transdiff_names.name_table(TINY))
    import_transdiff(tmp_path / "a.pth", tmp_path / "run", heads=2)
    weights = load_weights(tmp_path / "run", mesh())
    mrar = dataclasses.replace(TINY, num_images=4, tokens_per_image=4, mask_tokens=4, reference_patch=2)
    config = dataclasses.replace(weights.config, model=mrar)
    fresh = create_state(config, mesh()).params
    adapted = adapt_params(weights.params, fresh, weights.config.model, "run")
    jax.tree.map(np.testing.assert_array_equal, adapted["decoder"], weights.params["decoder"])
    store = CheckpointStore(tmp_path / "run", keep_last=1)
    with pytest.raises(UserError, match=r"no training state to resume: .* config\.train\.init_from"):
        start(weights.config, mesh(), store, data=None, make_task=None)
    store.close()


def test_a_trained_run_is_exported(tmp_path):
    config = tiny_config()
    state = create_state(config, mesh())
    store = CheckpointStore(tmp_path, keep_last=1)
    store.save(3, state, RunRecord(config, {"position": 3}, 0.0))
    store.close()
    export_transdiff(tmp_path, tmp_path / "a.pth")
    exported = read(tmp_path / "a.pth")["model"]
    assert torch.count_nonzero(exported["z_proj.weight"]) == 0
    ours = from_reference(
        transdiff_names.name_table(config.model), {name: tensor.numpy() for name, tensor in exported.items()}, "a"
    )
    jax.tree.map(np.testing.assert_array_equal, ours, jax.device_get(state.params))


def test_kl16_there_and_back(tmp_path):
    shapes = {"loss.logvar": (), "loss.disc.weight": (2, 3)}
    table = kl16_names.name_table(TINY_KL16, shapes)
    tensors = write(tmp_path / "a.ckpt", table, ema=False)
    returned = import_kl16(tmp_path / "a.ckpt", tmp_path / "kl16")
    assert [unused.reference for unused in returned.unused] == list(shapes)
    tokenizer = load_tokenizer(tmp_path / "kl16", "float32", 8)
    assert tokenizer.config == TINY_KL16
    expected = from_reference(table, {name: tensor.numpy() for name, tensor in tensors.items()}, "a")
    jax.tree.map(np.testing.assert_array_equal, tokenizer.params, expected)
    export_kl16(tmp_path / "kl16", tmp_path / "back.ckpt")
    after = read(tmp_path / "back.ckpt")["model"]
    assert {*after} == {*tensors}
    assert all(torch.equal(after[name], tensor) for name, tensor in tensors.items())


def test_a_converted_model_is_sampled_with_a_converted_tokenizer(tmp_path):
    write(tmp_path / "model.pth", transdiff_names.name_table(TINY))
    write(tmp_path / "kl16.pth", kl16_names.name_table(TINY_KL16), ema=False)
    import_kl16(tmp_path / "kl16.pth", tmp_path / "kl16")
    import_transdiff(tmp_path / "model.pth", tmp_path / "run", heads=2, tokenizer=str(tmp_path / "kl16"))
    weights = load_weights(tmp_path / "run", mesh())
    values = weights.config.to_dict()
    values["sampling"]["steps"] = 2
    sampler = make_sampler(make_config(values), mesh())
    images = sampler(weights.params, np.array([0, 2]), 0, np.array([0, 1])).images
    assert images.shape == (2, 1, 64, 64, 3)
    assert images.dtype == np.uint8
    assert len(np.unique(images)) > 10


def test_the_thousand_classes_of_imagenet_get_their_names(tmp_path):
    write(tmp_path / "a.pth", transdiff_names.name_table(dataclasses.replace(TINY, num_classes=1000)))
    import_transdiff(tmp_path / "a.pth", tmp_path / "run", heads=2)
    names = load_weights(tmp_path / "run", mesh()).class_names
    assert (len(names), names[0], names[207]) == (1000, "tench, Tinca tinca", "golden retriever")
    write(tmp_path / "b.pth", transdiff_names.name_table(TINY))
    import_transdiff(tmp_path / "b.pth", tmp_path / "other", heads=2)
    assert load_weights(tmp_path / "other", mesh()).class_names == ()
