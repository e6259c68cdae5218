import dataclasses
import json

import jax
import numpy as np
import pytest

import transdiff_jax as td
from tests.support.configs import tiny_config
from tests.support.flags import run
from tests.support.machines import shrink
from tests.support.slow import slow
from transdiff_jax.cli import sample
from transdiff_jax.config import MeshConfig
from transdiff_jax.generation.sample_files import image_path, reference_path
from transdiff_jax.images.png import load_png
from transdiff_jax.parallel.mesh import make_mesh

LABELS = [3, 1, 4, 1]


@pytest.fixture(scope="module", params=[False, slow(True)], ids=["one_step", "mrar"])
def workdir(request, tmp_path_factory, digits_directory):
    """A run of two steps; its second average differs from the first."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny_config(
        request.param,
        data={"directory": str(digits_directory)},
        train={"steps": 2, "ema_rates": (0.5, 0.9), "checkpoint_every": 1},
    )
    td.train(config, folder)
    return folder


@pytest.fixture(scope="module")
def model(workdir):
    return td.load(workdir, mesh=make_mesh(MeshConfig(), jax.devices()[:1]))


def images_of(out, count):
    return np.stack([load_png(image_path(out, index), 1) for index in range(count)])


def test_samples_are_the_bytes_of_the_command(workdir, tmp_path):
    command = ["--labels=3,1,4,1", "--guidance=1.5", "--steps=2", "--seed=5", "--all_images", f"--workdir={workdir}"]
    run(sample, *command, f"--out={tmp_path}")
    model = td.load(str(workdir))
    images = model.sample(LABELS, seed=5, guidance=1.5, steps=2)
    assert (images.dtype, images.shape) == (np.uint8, (4, 8, 8, 1))
    np.testing.assert_array_equal(images, images_of(tmp_path, 4))
    sequences = model.sample(np.array(LABELS), seed=5, guidance=1.5, steps=2, all_images=True)
    assert sequences.shape == (4, model.config.model.num_images, 8, 8, 1)
    np.testing.assert_array_equal(sequences[:, -1], images)
    for number in range(1, model.config.model.num_images):
        np.testing.assert_array_equal(sequences[2, number - 1], load_png(reference_path(tmp_path, 2, number), 1))


def test_fused_samples_are_the_bytes_of_the_command(workdir, tmp_path):
    flags = ["--fuse=3,8", "--num_samples=3", "--fuse_fraction=0.3", "--seed=2", f"--workdir={workdir}"]
    run(sample, *flags, f"--out={tmp_path}")
    images = td.load(workdir).fuse(3, 8, fraction=0.3, n=3, seed=2)
    np.testing.assert_array_equal(images, images_of(tmp_path, 3))


def test_written_samples_are_the_bytes_of_the_command(workdir, tmp_path):
    run(sample, "--labels=3,1", "--guidance=1.5", f"--workdir={workdir}", f"--out={tmp_path / 'command'}")
    model = td.load(workdir).with_settings(guidance=1.5)
    record = td.generate(model, td.SampleRequest((3, 1), seed=0), tmp_path / "library")
    assert record == json.loads((tmp_path / "library" / "samples.json").read_text())
    np.testing.assert_array_equal(images_of(tmp_path / "library", 2), images_of(tmp_path / "command", 2))
    assert td.generate(model, td.SampleRequest((3, 1), seed=0), tmp_path / "command")["images_made"] == 2, "one set"


def test_a_sample_depends_on_its_index_and_not_on_the_batch(model):
    whole = model.sample(LABELS, seed=1).astype(int)
    part = model.sample([4, 3], seed=1, indices=[2, 0], batch_size=1).astype(int)
    assert np.abs(part - whole[[2, 0]]).max() <= 1
    assert (model.sample(LABELS, seed=2) != whole).any(axis=(1, 2, 3)).all()


def test_compiled_samplers_are_kept(model, monkeypatch):
    model.sample([1, 2], steps=2)
    with monkeypatch.context() as context:
        context.setattr(jax.stages.Lowered, "compile", lambda *args, **kw: pytest.fail("compiled again"))
        model.sample([5, 6, 7], seed=9, steps=2)
    assert model.with_settings(steps=2)._sampler(False) is model.with_settings(steps=2)._sampler(False)


def test_progress_is_told_after_each_batch(model):
    seen = []
    model.sample([1] * 5, batch_size=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_latents_of_images_give_the_images(model):
    images = model.sample([3, 1, 4])
    latents = model.encode(images)
    assert (latents.dtype, latents.shape) == (np.float32, (3, 4, 4, 4))
    np.testing.assert_array_equal(model.decode(latents), images)


def test_semantic_features_are_of_classes(model):
    c = model.config.model
    features = model.semantic_features([3, 1, 3])
    assert (features.dtype, features.shape) == (np.float32, (3, c.tokens_per_image, c.width))
    np.testing.assert_allclose(features[0], features[2], rtol=1e-5, atol=1e-5)
    assert np.abs(features[0] - features[1]).max() > 1e-3


def test_other_steps_averages_and_dtypes(workdir, model):
    mesh = model.mesh
    assert (model.weights.step, model.weights.name) == (2, "ema 0.5")
    assert td.load(workdir, step=1, mesh=mesh).weights.step == 1
    other = td.load(workdir, ema_rate=0.9, mesh=mesh)
    assert other.weights.name == "ema 0.9"
    half = td.load(workdir, dtype="bfloat16", mesh=mesh)
    assert half.config.model.dtype == "bfloat16"
    assert {leaf.dtype for leaf in jax.tree.leaves(half.weights.params)} == {np.dtype("float32")}
    assert dataclasses.replace(half.config, model=model.config.model) == model.config
    assert np.abs(half.sample([3]).astype(int) - model.sample([3])).max() < 64
    assert model.class_names == tuple("0123456789")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.sample([10]), "^labels: class 10 does not exist; this model has classes 0 to 9$"),
        (lambda model: model.sample([]), "at least one label"),
        (lambda model: model.sample([1.5]), "^labels must be a list of whole numbers"),
        (lambda model: model.sample(3), "^labels must be a list of whole numbers"),
        (lambda model: model.sample(["3"]), "^labels must be a list of whole numbers"),
        (lambda model: model.sample([1], indices=[1, 2]), "^indices must be 1 whole numbers"),
        (lambda model: model.sample([1], guidance=0.5), r"^guidance=\(0\.5,\): 0\.5 must be at least 1"),
        (lambda model: model.sample([1], steps=0), "^steps=0 must be at least 1"),
        (lambda model: model.sample([1], solver="rk4"), "^solver='rk4' is not one of"),
        (lambda model: model.sample([1], stesp=3), "^stesp is not a configuration field"),
        (lambda model: model.fuse(3, 11), "^fuse_with: class 11 does not exist"),
        (lambda model: model.encode(np.zeros((1, 4, 4, 1), np.uint8)), r"^images must be uint8 \[n, 8, 8, 1\]"),
        (lambda model: model.decode(np.zeros((1, 3, 3, 4))), r"^latents must be \[n, 4, 4, 4\]"),
        (lambda model: td.load("runs/absent"), "holds no checkpoints"),
        (
            lambda model: td.load("s3://bucket/run"),
            "s3://bucket/run is no local path, and gs://BUCKET/FOLDER is",
        ),
    ],
)
def test_mistakes_name_arguments_in_one_line(model, call, message):
    with pytest.raises(td.UserError, match=message) as caught:
        call(model)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)


def test_a_step_that_is_not_there(workdir, model):
    with pytest.raises(td.UserError, match=r"holds no checkpoint of step 7; choose one of \[1, 2\]"):
        td.load(workdir, step=7, mesh=model.mesh)


def test_a_model_or_a_batch_that_no_device_holds_is_one_line(model, workdir, monkeypatch):
    shrink(monkeypatch, 2**20)
    with pytest.raises(td.UserError, match=r"^sampling takes at least [\d,.]+ GiB of each device .*: lower "):
        model.sample(LABELS, batch_size=2**24)
    with pytest.raises(td.UserError, match=r"^n=100000000000 must be at least 1 and at most 10000000$"):
        model.fuse(1, 2, n=10**11)
    shrink(monkeypatch, 2**10)
    with pytest.raises(td.UserError, match=rf"^the model of {workdir} takes at least .* \(parameters .*--mesh=1,-1,1"):
        td.load(workdir)
