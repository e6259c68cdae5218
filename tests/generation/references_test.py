"""Pictures that MRAR sequences begin with."""

import dataclasses
import hashlib
import json

import jax
import numpy as np
import pytest
from PIL import Image

import transdiff_jax as td
from tests.support.configs import tiny_config
from tests.support.flags import run
from tests.support.parameters import random_params
from tests.support.photos import photographs
from transdiff_jax.checkpoints.weights import Weights
from transdiff_jax.cli import sample
from transdiff_jax.config import MeshConfig
from transdiff_jax.data.transforms import center_square
from transdiff_jax.errors import UserError
from transdiff_jax.generation.generate import generate_samples
from transdiff_jax.generation.references import reference_pictures
from transdiff_jax.generation.request import SampleRequest
from transdiff_jax.generation.sample_files import image_path, reference_path
from transdiff_jax.generation.trained_model import TrainedModel
from transdiff_jax.images.png import load_png, save_png
from transdiff_jax.parallel.mesh import make_mesh

CONFIG = tiny_config(mrar=True, sampling={"batch_size": 8, "steps": 2})
LABELS = [3, 1, 4]


@pytest.fixture(scope="module")
def model():
    weights = Weights(CONFIG, random_params(CONFIG.model), "ema 0.9", 7, "digest")
    return TrainedModel(weights, make_mesh(MeshConfig(), jax.devices()[:1]))


@pytest.fixture(scope="module")
def pictures():
    return [np.random.default_rng(number).integers(0, 256, (8, 8, 1)).astype(np.uint8) for number in range(3)]


def images_of(out, count):
    return np.stack([load_png(image_path(out, index), 1) for index in range(count)])


def test_sequences_begin_with_the_pictures(model, pictures):
    made = model.sample(LABELS, references=pictures[:2], all_images=True)
    for number, picture in enumerate(pictures[:2]):
        # The tiny tokenizer rounds nothing away.
        np.testing.assert_array_equal(made[:, number], np.broadcast_to(picture, (3, 8, 8, 1)))
    others = model.sample(LABELS, references=pictures[1:], all_images=True)
    assert (made[:, 2:] != others[:, 2:]).any(axis=(1, 2, 3, 4)).all()
    np.testing.assert_array_equal(model.sample(LABELS, references=pictures[:2]), made[:, -1])
    assert (model.sample(LABELS) != made[:, -1]).any(axis=(1, 2, 3)).all(), "none are kept from an earlier call"


def test_files_arrays_and_pillows_images_are_the_same(model, tmp_path):
    photo = photographs()["flower"]
    Image.fromarray(photo).save(tmp_path / "a.png")
    Image.fromarray(photo).convert("RGBA").save(tmp_path / "b.webp", lossless=True)
    (ours,) = reference_pictures([tmp_path / "a.png"], CONFIG)
    assert (ours.shape, ours.dtype) == ((8, 8, 1), np.uint8)
    grey = np.asarray(Image.fromarray(photo).convert("L"))[..., None]
    np.testing.assert_array_equal(ours, center_square(grey, 8))
    for other in (str(tmp_path / "b.webp"), Image.fromarray(photo), grey):
        np.testing.assert_array_equal(reference_pictures([other], CONFIG)[0], ours)


def test_written_samples_follow_the_pictures_and_the_record_names_them(model, pictures, tmp_path):
    request = SampleRequest(tuple(LABELS), seed=0, all_images=True, references=tuple(pictures))
    record = generate_samples(model.weights, request, tmp_path, model.mesh)
    assert record["settings"]["references"] == [hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures]
    np.testing.assert_array_equal(images_of(tmp_path, 3), model.sample(LABELS, references=pictures))
    np.testing.assert_array_equal(load_png(reference_path(tmp_path, 2, 3), 1), pictures[2])
    with pytest.raises(UserError, match="holds samples with other references"):
        generate_samples(model.weights, dataclasses.replace(request, references=()), tmp_path, model.mesh)


@pytest.mark.slow
def test_the_command_makes_the_librarys_bytes(digits_directory, pictures, tmp_path):
    train = {"steps": 1, "checkpoint_every": 1}
    td.train(tiny_config(True, data={"directory": str(digits_directory)}, train=train), tmp_path / "run")
    for number, picture in enumerate(pictures[:2]):
        save_png(tmp_path / f"{number}.png", picture)
    files = [str(tmp_path / f"{number}.png") for number in range(2)]
    arguments = ["--labels=3,1", "--steps=2", "--guidance=1.5", f"--references={','.join(files)}"]
    run(sample, *arguments, f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'out'}")
    images = td.load(tmp_path / "run").sample([3, 1], steps=2, guidance=1.5, references=files)
    np.testing.assert_array_equal(images_of(tmp_path / "out", 2), images)
    assert len(json.loads((tmp_path / "out" / "samples.json").read_text())["settings"]["references"]) == 2


def test_what_cannot_be_a_reference_is_one_line(model, pictures, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    for given, message in (
        (pictures + pictures[:1], r"^references: this model takes 1 to 3 pictures, not 4$"),
        ([tmp_path / "text.png"], r"^references: .*text\.png cannot be read as an image: not an image file of"),
        ([tmp_path / "none.png"], r"^references: .*none\.png cannot be read: No such file or directory$"),
        ([tmp_path], r"^references: .* cannot be read as an image: is not a file$"),
        ([pictures[0][..., 0]], r"^references: an array must be uint8 \[height, width, 1\], not uint8 \[8, 8\]$"),
        ([pictures[0] / 255], r"^references: an array must be uint8 \[height, width, 1\], not float64 \[8, 8, 1\]$"),
    ):
        with pytest.raises(UserError, match=message):
            model.sample([3], references=given)
    with pytest.raises(UserError, match=r"^references: this model makes one image at a time"):
        reference_pictures(pictures[:1], tiny_config())
