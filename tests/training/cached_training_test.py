"""From images on disk over cached latents and neighbour groups to a trained run."""

import numpy as np
import pytest

from tests.support.latents import photo_config, save_tiny_weights
from tests.support.photos import CLASSES, write_folder, write_tfds
from tests.support.slow import slow
from transdiff_jax.checkpoints.weights import load_weights
from transdiff_jax.config import MeshConfig
from transdiff_jax.data.groups.making import write_neighbour_groups
from transdiff_jax.data.latents.encode import cache_latents
from transdiff_jax.data.latents.source import LatentSource
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.training.loop import train


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_tiny_weights(tmp_path_factory.mktemp("kl16") / "weights")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("folder"))


@pytest.mark.parametrize("kind", [slow("folder"), "tfds"])
def test_images_are_cached_grouped_and_trained_on(weights, folder, tmp_path, kind):
    images = {"source": f"folder:{folder}", "crop": "center"}
    if kind == "tfds":
        images |= {"source": "tfds:photos", "directory": str(write_tfds(folder, tmp_path))}
    cache_latents(photo_config(weights, data=images), tmp_path / "latents")
    source, mesh = LatentSource(tmp_path / "latents"), make_mesh(MeshConfig())
    assert (len(source), source.class_names) == (16, CLASSES)
    # TFDS stores records in its own order.
    assert {source.id(index).partition("/")[0] for index in np.flatnonzero(source.labels() == 1)} == {"flower"}
    write_neighbour_groups(source, tmp_path / "groups", 2, "error")

    data = {
        "source": f"latents:{tmp_path}/latents",
        "crop": "center",
        "flip": True,
        "groups": f"index:{tmp_path}/groups",
    }
    config = photo_config(weights, mrar=True, data=data, train={"sample_every": 2, "steps": 3})
    train(config, tmp_path / "run")
    trained = load_weights(tmp_path / "run", mesh)
    assert (trained.step, trained.class_names) == (3, CLASSES)
