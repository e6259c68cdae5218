"""Fine-tuning on a small set: cut-outs of the two photographs that come with scikit-learn."""

import numpy as np
import pytest
from PIL import Image

import transdiff_jax as td
from tests.support.configs import tiny_config
from tests.support.photos import photographs
from transdiff_jax.training.metric_writers import read_metrics

SIDE, CELL = 96, 213  # of a cut-out, and of the six cells of a photograph that they come from
COUNT = 60  # of a class
STEPS = 80


def write_cutouts(folder, cells):
    """A class for each of these cells of each photograph."""
    draw = np.random.default_rng(0)
    for name, photo in photographs().items():
        for cell in cells:
            (folder / f"{name}_{cell}").mkdir(parents=True)
            for number in range(COUNT):
                top, left = CELL * np.array(divmod(cell, 3)) + draw.integers(CELL - SIDE + 1, size=2)
                cutout = Image.fromarray(photo[top : top + SIDE, left : left + SIDE])
                cutout.save(folder / f"{name}_{cell}" / f"{number}.png")
    return folder


def config_of(folder, steps=STEPS, **train):
    return tiny_config(
        data={"source": f"folder:{folder}", "image_channels": 3, "crop": "random", "flip": True},
        model={"num_classes": 0, "width": 64, "heads": 4, "latent_channels": 12},
        optimizer={"learning_rate": 1e-3, "scale_with_batch": False, "warmup_steps": 20},
        train={"batch_size": 32, "steps": steps, "ema_warmup": True, "checkpoint_every": steps, **train},
    )


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    td.train(config_of(write_cutouts(folder / "images", (0, 1, 2, 3)), steps=300), folder / "run")
    return folder / "run"


def steps_to(run, loss):
    steps, values = read_metrics(run / "metrics.jsonl", "loss")
    means = np.convolve(values, np.full(10, 0.1), "valid")
    return next((step for step, mean in zip(steps[9:], means, strict=True) if mean <= loss), np.inf)


@pytest.mark.slow
def test_other_cut_outs_take_fewer_steps_than_from_scratch(pretrained, tmp_path):
    images = write_cutouts(tmp_path / "images", (4, 5))
    td.train(config_of(images), tmp_path / "scratch")
    td.train(config_of(images, init_from=str(pretrained), classes="fresh"), tmp_path / "tuned")
    model = td.load(tmp_path / "tuned")
    assert model.class_names == ("china_4", "china_5", "flower_4", "flower_5")
    _, losses = read_metrics(tmp_path / "scratch" / "metrics.jsonl", "loss")
    reached = np.mean(losses[-10:])
    assert 2 * steps_to(tmp_path / "tuned", reached) < steps_to(tmp_path / "scratch", reached)


@pytest.mark.slow
def test_one_class_trains_and_samples_without_guidance(tmp_path):
    write_cutouts(tmp_path / "images" / "all", (4,))
    td.train(config_of(tmp_path / "images", steps=20), tmp_path / "run")
    model = td.load(tmp_path / "run")
    assert model.class_names == ("all",)
    images = model.sample([0, 0], seed=1)
    assert images.shape == (2, 8, 8, 3) and np.any(images[0] != images[1])
