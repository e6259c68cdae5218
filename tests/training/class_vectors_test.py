import dataclasses
import logging

import jax
import numpy as np
import pytest

from tests.support.configs import tiny_config
from tests.support.photos import CLASSES, write_folder
from tests.support.runs import CONFIG, make_state
from transdiff_jax.checkpoints.record import RunRecord
from transdiff_jax.checkpoints.store import CheckpointStore
from transdiff_jax.checkpoints.weights import load_weights
from transdiff_jax.config import MeshConfig
from transdiff_jax.data.pipeline import TrainingData, with_classes_of_data
from transdiff_jax.data.sources import imagenet
from transdiff_jax.errors import UserError
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.training.class_vectors import match_names, with_classes
from transdiff_jax.training.start import check_start, start
from transdiff_jax.training.task import Task

NAMES = (*(f"thing {number}" for number in range(9)), "Flower, blossom")


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def run(tmp_path_factory, mesh):
    """A run of ten classes, one of which the photographs have, too."""
    workdir = tmp_path_factory.mktemp("run")
    with CheckpointStore(workdir, keep_last=1) as store:
        store.save(1, make_state(mesh), RunRecord(CONFIG, {"global_next_index": 8}, 1.0, NAMES))
    return workdir


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("photos"), count=4)


def config_of(photos, run, classes, **model):
    data = {"source": f"folder:{photos}", "crop": "center"}
    train = {"init_from": str(run), "classes": classes}
    return tiny_config(data=data, train=train, model={"num_classes": 0} | model)


def lines(caplog):
    return [record.getMessage() for record in caplog.records if "class vectors" in record.getMessage()]


def test_a_run_starts_on_the_classes_of_a_folder(photos, run, mesh, tmp_path, caplog):
    config = with_classes_of_data(config_of(photos, run, "by_name"))
    assert config.model.num_classes == 2
    data = TrainingData(config, tmp_path)
    with caplog.at_level(logging.INFO), CheckpointStore(tmp_path, keep_last=1) as store:
        _, state, _ = start(config, mesh, store, data, lambda *_: Task())
    data.close()
    source, params = load_weights(run, mesh).params, state.params
    table, found = source["encoder"]["class_embedding"], params["encoder"]["class_embedding"]
    np.testing.assert_allclose(found, [np.mean(table, axis=0), table[9]], rtol=1e-6)
    np.testing.assert_array_equal(params["encoder"]["null_class"], source["encoder"]["null_class"])
    jax.tree.map(np.testing.assert_array_equal, params["decoder"], source["decoder"])
    assert lines(caplog) == [
        "fine-tuning: 1 of 2 class vectors are taken by name: flower (Flower, blossom)",
        "fine-tuning: 1 of 2 class vectors start at the mean of all: china",
    ]


def test_fresh_classes_start_at_the_mean(run, mesh, caplog):
    weights = load_weights(run, mesh)
    with caplog.at_level(logging.INFO):
        made = with_classes(weights, ("thing 0",), "fresh", "there")["encoder"]["class_embedding"]
    np.testing.assert_allclose(made, np.mean(weights.params["encoder"]["class_embedding"], axis=0)[None], rtol=1e-6)
    assert lines(caplog) == ["fine-tuning: 1 of 1 class vectors start at the mean of all: thing 0"]


def test_the_same_classes_stay_in_place(run, mesh, caplog):
    weights = load_weights(run, mesh)
    assert with_classes(weights, NAMES, "same", "there") is weights.params
    assert lines(caplog) == []
    with_classes(weights, ("other", *NAMES[1:]), "same", "there")
    (line,) = lines(caplog)
    assert "but 1 of 10 classes have other names, such as other in place of thing 0" in line


def test_names_must_be_known(run, mesh):
    weights = dataclasses.replace(load_weights(run, mesh), class_names=())
    with pytest.raises(UserError, match=r'^config\.train\.classes="by_name": there has no class names; choose "fresh"'):
        with_classes(weights, CLASSES, "by_name", "there")


def test_classes_of_another_run_need_one(photos, mesh):
    with pytest.raises(UserError, match=r'^config\.train\.classes="fresh" .* name it in config\.train\.init_from'):
        check_start(config_of(photos, "", "fresh", num_classes=2), mesh)
    with pytest.raises(UserError, match=r'classes="fresh" needs a trained semantic encoder'):
        tiny_config(train={"classes": "fresh", "only": "decoder"})


def test_names_match_whatever_their_case_and_by_their_synonyms():
    known = ("tench, Tinca tinca", "crane", "crane, lifter", "Great_White  shark", "dome, roof", "dome, cap")
    asked = ("TINCA tinca", "tench, tinca tinca", "Crane", "lifter", "great white_shark", "dome", "boat")
    assert match_names(known, asked) == [0, 0, 1, 2, 3, None, None]
    assert match_names(imagenet.readable_names(imagenet.wnids()), ("goldfish", "daisy")) == [1, 985]
