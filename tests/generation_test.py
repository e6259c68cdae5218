import dataclasses
import json

import jax
import numpy as np
import pytest

from tests.conftest import tiny_config
from transdiff_jax import generation, sharding
from transdiff_jax.checkpoint import Weights
from transdiff_jax.config import MeshConfig
from transdiff_jax.errors import UserError
from transdiff_jax.generation import SampleRequest, generate, image_path, reference_path
from transdiff_jax.images import load_png
from transdiff_jax.training.state import create_state

CONFIG = tiny_config(mrar=True, sampling={"batch_size": 4, "steps": 2})
LABELS = (0, 0, 1, 1, 2, 2)


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def weights(mesh):
    params = create_state(CONFIG, mesh).params
    # A velocity that is zero everywhere would make every sample its own noise.
    keys = iter(jax.random.split(jax.random.key(0), len(jax.tree.leaves(params))))
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(next(keys), p.shape), params)
    return Weights(CONFIG, params, "ema 0.9", 7, "digest")


def read_all(out, count):
    return np.stack([load_png(image_path(out, index), 1) for index in range(count)])


@pytest.fixture(scope="module")
def finished(weights, mesh, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    generate(weights, SampleRequest(LABELS, seed=3, all_images=True), out, mesh)
    return out


def test_layout_and_record(finished):
    record = json.loads((finished / "samples.json").read_text())
    assert record["settings"]["labels"] == list(LABELS)
    assert record["images_made"] == 6
    assert record["images_per_second"] > 0
    assert len(list((finished / "images").iterdir())) == 6
    assert sorted(path.name for path in (finished / "references").iterdir())[:4] == [
        *(f"000000_{k}.png" for k in (1, 2, 3)),
        "000001_1.png",
    ]
    assert load_png(finished / "grid.png", 1).shape == (3 * (32 + 2) + 2, 2 * (32 + 2) + 2, 1)
    assert not list(finished.rglob("*.tmp"))


def test_samples_differ(finished):
    images = read_all(finished, 6)
    assert len(np.unique(images.reshape(6, 64), axis=0)) == 6
    assert np.any(load_png(reference_path(finished, 0, 1), 1) != images[0])


def test_a_finished_set_is_left_alone(finished, weights, mesh):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.png")}
    generate(weights, SampleRequest(LABELS, seed=3, all_images=True), finished, mesh)
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*.png")} == before


def test_a_stopped_job_ends_with_the_same_images(finished, weights, mesh, tmp_path, monkeypatch):
    request = SampleRequest(LABELS, seed=3)
    written = []

    def killed_after_three(path, image):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        save_png(path, image)

    save_png = generation.save_png
    monkeypatch.setattr(generation, "save_png", killed_after_three)
    with pytest.raises(KeyboardInterrupt):
        generate(weights, request, tmp_path, mesh)
    monkeypatch.setattr(generation, "save_png", save_png)
    record = generate(weights, request, tmp_path, mesh)
    assert record["images_made"] == 3
    # Other samples share the batch now: equal to within rounding.
    difference = read_all(tmp_path, 6).astype(int) - read_all(finished, 6).astype(int)
    assert np.abs(difference).max() <= 1


def test_another_batch_size_goes_on(finished, weights, mesh):
    sampling = dataclasses.replace(CONFIG.sampling, batch_size=2)
    other = dataclasses.replace(weights, config=dataclasses.replace(CONFIG, sampling=sampling))
    before = read_all(finished, 6)
    image_path(finished, 4).unlink()
    generate(other, SampleRequest(LABELS, seed=3, all_images=True), finished, mesh)
    assert np.abs(read_all(finished, 6).astype(int) - before.astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "other seed"),
        ({"labels": (0, 1)}, "other labels"),
    ],
)
def test_other_settings_do_not_mix(finished, weights, mesh, change, message):
    request = dataclasses.replace(SampleRequest(LABELS, seed=3), **change)
    with pytest.raises(UserError, match=message):
        generate(weights, request, finished, mesh)
    with pytest.raises(UserError, match="other checkpoint_sha256"):
        generate(dataclasses.replace(weights, digest="other"), SampleRequest(LABELS, seed=3), finished, mesh)


@pytest.mark.parametrize("labels", [(10,), (-1,), (0, 99)])
def test_labels_out_of_range(weights, mesh, tmp_path, labels):
    with pytest.raises(UserError, match=r"class (10|-1|99) does not exist; this model has classes 0 to 9"):
        generate(weights, SampleRequest(labels, seed=0), tmp_path, mesh)


def test_folders_that_cannot_be_used(weights, mesh, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--out=.*file cannot be used"):
        generate(weights, SampleRequest((0,), seed=0), tmp_path / "file", mesh)
    (tmp_path / "full" / "images").mkdir(parents=True)
    (tmp_path / "full" / "images" / "cat.png").write_text("")
    with pytest.raises(UserError, match=r"holds images but no samples.json"):
        generate(weights, SampleRequest((0,), seed=0), tmp_path / "full", mesh)
