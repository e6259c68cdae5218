import json

import numpy as np
import pytest
from PIL import Image

from tests.support.configs import tiny_config
from transdiff_jax.checkpoints.weights import load_weights
from transdiff_jax.config import MeshConfig
from transdiff_jax.demo.report import write_report
from transdiff_jax.errors import UserError
from transdiff_jax.generation.generate import generate_samples
from transdiff_jax.generation.request import SampleRequest, balanced_labels
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.training.loop import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Both runs, barely trained, with ten samples of each class."""
    folder = tmp_path_factory.mktemp("digits")
    mesh = make_mesh(MeshConfig())
    one_step = tiny_config(data={"directory": str(folder / "data")}, sampling={"steps": 2, "batch_size": 40})
    mrar = tiny_config(
        mrar=True,
        data={"directory": str(folder / "data")},
        sampling={"steps": 2, "batch_size": 40},
        train={"init_from": str(folder / "one_step")},
    )
    for name, config in (("one_step", one_step), ("mrar", mrar)):
        train(config, folder / name)
        request = SampleRequest(
            tuple(balanced_labels(100, config.model.num_classes)), seed=0, all_images=name == "mrar"
        )
        generate_samples(load_weights(folder / name, mesh), request, folder / "samples" / name, mesh)
    return folder


def test_the_report_holds_scores_times_and_pictures(folder):
    report = write_report(folder)
    assert json.loads((folder / "report.json").read_text()) == report
    for name in ("one_step", "mrar"):
        scores = report[name]
        assert scores["samples"] == 100
        assert 0 <= scores["class_agreement"] < 0.6, "four steps teach nothing"
        assert scores["frechet"] > 10 * report["real"]["frechet_floor"]
        assert min(scores["train_seconds"], scores["sample_seconds"], scores["images_per_second"]) > 0
    for references in report["references"].values():
        assert abs(references["score"]) < 0.5 and references["error"] > 0 and references["count"] >= 50
    assert report["real"]["classifier_accuracy"] > 0.97
    for picture in ("samples.png", "mrar_sequence.png", "loss.png"):
        with Image.open(folder / picture) as image:
            assert len(np.unique(np.asarray(image))) > 10


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("samples/mrar/samples.json", r"samples\.json cannot be read: No such file"),
        ("samples/one_step/images/000003.png", r"000003\.png is missing; run the same"),
        ("samples/mrar/references/000000_1.png", r"000000_1\.png cannot be read: No such file"),
    ],
)
def test_what_is_missing_is_named(folder, missing, message):
    moved = folder / "moved"
    (folder / missing).rename(moved)
    with pytest.raises(UserError, match=message):
        write_report(folder)
    moved.rename(folder / missing)


@pytest.mark.parametrize("name", ["samples/one_step/images/000003.png", "samples/mrar/references/000000_1.png"])
def test_images_that_have_changed_are_not_scored_nor_shown(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"\.png has changed since transdiff sample wrote it; run the same transdiff"):
        write_report(folder)
    (folder / name).write_bytes(content)
