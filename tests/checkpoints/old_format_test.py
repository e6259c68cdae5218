"""Runs and sample sets of version 0.1 can still be loaded and continued. That version made the archive of both."""

import json
import logging
import shutil
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

import transdiff_jax as td
from transdiff_jax.checkpoints.weights import latest_record, load_weights
from transdiff_jax.config import MeshConfig
from transdiff_jax.generation.finished_set import read_finished
from transdiff_jax.generation.generate import generate_samples
from transdiff_jax.images.png import load_png
from transdiff_jax.parallel.mesh import make_mesh

ARCHIVE = Path(__file__).with_name("version_0_1.zip")
LABELS = (3, 1, 4, 1, 5, 9)


@pytest.fixture
def old(tmp_path):
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


def images_of(folder):
    return np.stack([load_png(folder / name, 1) for name in read_finished(folder).digests]).astype(int)


def test_a_run_is_read(old, mesh):
    record = latest_record(old / "run")
    assert record.config.model.width == 8
    weights = load_weights(old / "run", mesh)
    assert (weights.step, weights.name, weights.class_names[3]) == (4, "ema 0.998", "3")
    assert weights.digest == json.loads((old / "samples" / "samples.json").read_text())["settings"]["checkpoint_sha256"]


def test_a_run_goes_on(old, digits_directory, caplog):
    values = latest_record(old / "run").config.to_dict()
    values["train"]["steps"] = 6
    values["data"]["directory"] = str(digits_directory)
    with caplog.at_level(logging.INFO):
        td.train(values, old / "run")
    assert "resuming from the checkpoint of step 4" in caplog.text
    assert [int(line["step"]) for line in map(json.loads, (old / "run" / "metrics.jsonl").open())] == [2, 4, 6]
    assert load_weights(old / "run", make_mesh(MeshConfig())).step == 6


def test_a_finished_sample_set_is_complete_and_a_damaged_one_is_mended(old, mesh):
    samples, weights = old / "samples", load_weights(old / "run", mesh)
    before, record = images_of(samples), read_finished(samples).record
    request = td.SampleRequest(LABELS, seed=0)
    assert generate_samples(weights, request, samples, mesh) == record, "nothing is made again"
    shutil.copy(samples / "images" / "000000.png", samples / "images" / "000004.png")
    (samples / "images" / "000001.png").unlink()
    assert generate_samples(weights, request, samples, mesh)["images_made"] == 2
    assert np.abs(images_of(samples) - before).max() <= 1, "other machines round otherwise"
