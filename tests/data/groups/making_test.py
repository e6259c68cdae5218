import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.latents import Photographs, photo_config, save_tiny_weights
from tests.support.parameters import random_params
from transdiff_jax.checkpoints.weights import Weights
from transdiff_jax.config import MeshConfig
from transdiff_jax.data.groups.index import IndexedGroups
from transdiff_jax.data.groups.making import nearest_groups, write_neighbour_groups, write_random_groups
from transdiff_jax.data.latents import encode
from transdiff_jax.data.latents.source import LatentSource
from transdiff_jax.data.pipeline import TrainingData
from transdiff_jax.errors import UserError
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.sampling.reference_features import reference_features
from transdiff_jax.tokenizer.kl16 import LATENT_SCALE

COUNT = 22  # eleven of each class


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_tiny_weights(tmp_path_factory.mktemp("kl16") / "weights")


@pytest.fixture(scope="module")
def source(weights, tmp_path_factory):
    out = tmp_path_factory.mktemp("latents") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "open_source", lambda *_: Photographs(COUNT))
        encode.cache_latents(photo_config(weights), out)
    return LatentSource(out)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig())


def read(path, source, num_images=4):
    groups = IndexedGroups(path, source, num_images)
    return np.array([groups.members(row, np.random.default_rng(0)) for row in range(len(groups))])


def check_groups(groups, source):
    assert sorted(groups[:, -1].tolist()) == list(range(COUNT)), "each record ends one"
    assert all(len(set(group)) == 4 for group in groups.tolist())
    assert (source.labels()[groups] == source.labels()[groups[:, -1:]]).all()


# --- nearest rows ---


def test_nearest_rows_come_last():
    features = np.array([[0.0], [1.0], [3.0], [7.0], [15.0]])
    assert nearest_groups(features, 4).tolist() == [
        [3, 2, 1, 0],
        [3, 2, 0, 1],
        [3, 0, 1, 2],  # 3 and 0 are 4 and 3 away, 1 is 2 away
        [0, 1, 2, 3],
        [1, 2, 3, 4],
    ]


def test_of_equally_near_rows_the_first_is_nearer():
    features = np.array([[0.0], [1.0], [-1.0], [1.0]])
    assert nearest_groups(features, 3)[0].tolist() == [2, 1, 0]


def test_too_few_rows_repeat():
    assert nearest_groups(np.array([[0.0], [1.0], [3.0]]), 5).tolist()[0] == [2, 1, 2, 1, 0]
    assert nearest_groups(np.array([[2.0, 3.0]]), 3).tolist() == [[0, 0, 0]]


def test_distances_survive_a_large_mean():
    features = 1e6 + np.random.default_rng(0).standard_normal((30, 8))
    literal = [
        sorted((k for k in range(30) if k != row), key=lambda k: np.linalg.norm(features[k] - features[row]))[:3][::-1]
        for row in range(30)
    ]
    assert nearest_groups(features, 4)[:, :3].tolist() == literal


# --- index files ---


def test_random_groups_are_a_function_of_the_seed(source, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert write_random_groups(source, tmp_path / name, 4, seed, "error") == COUNT
    check_groups(read(tmp_path / "a", source), source)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()
    line = json.loads((tmp_path / "a").read_text().splitlines()[0])
    assert line["cate"] == "china"
    assert line["files"][-1] == "0"


def test_neighbours_in_latent_space(source, mesh, tmp_path):
    assert write_neighbour_groups(source, tmp_path / "a", 4, "error") == COUNT
    groups = read(tmp_path / "a", source)
    check_groups(groups, source)
    means = np.stack([source[k]["moments"][0][..., :4].astype(np.float64).ravel() for k in range(COUNT)])
    for *earlier, last in groups.tolist():
        same = [k for k in range(COUNT) if k != last and source.labels()[k] == source.labels()[last]]
        nearest = sorted(same, key=lambda k: np.linalg.norm(means[k] - means[last]))
        assert earlier == nearest[:3][::-1]


@pytest.fixture(scope="module")
def run(weights):
    config = photo_config(weights, mrar=True)
    return Weights(config, random_params(config.model), "ema 0.9", 1, "digest")


def features_of(run, mesh):
    return reference_features(run.config.model, run.params, mesh)


def test_neighbours_in_the_space_of_semantic_features(source, run, mesh, tmp_path):
    write_neighbour_groups(source, tmp_path / "a", 4, "error", features_of(run, mesh))
    groups = read(tmp_path / "a", source)
    check_groups(groups, source)
    model = TransDiff(run.config.model)
    latents = LATENT_SCALE * np.stack([source[k]["moments"][0][..., :4].astype(np.float32) for k in range(COUNT)])
    encoded = model.apply(
        {"params": run.params},
        jnp.asarray(source.labels()),
        jnp.zeros(COUNT, bool),
        jnp.asarray(latents)[:, None],
        method=TransDiff.encode,
    )
    tokens = run.config.model.tokens_per_image
    features = np.asarray(encoded.features)[:, tokens : 2 * tokens].mean(axis=1)
    for *earlier, last in groups.tolist():
        distances = np.linalg.norm(features[earlier] - features[last], axis=1)
        assert all(far >= near - 1e-4 for far, near in itertools.pairwise(distances))
        others = [k for k in range(COUNT) if source.labels()[k] == source.labels()[last] and k not in (*earlier, last)]
        assert distances.max() <= np.linalg.norm(features[others] - features[last], axis=1).min() + 1e-4
    one = make_mesh(MeshConfig(), jax.devices()[:1])
    write_neighbour_groups(source, tmp_path / "b", 4, "error", features_of(run, one))
    np.testing.assert_array_equal(read(tmp_path / "b", source), groups)


def test_semantic_features_are_compiled_once_for_all_classes(source, run, mesh, tmp_path, monkeypatch):
    traced, apply = [], TransDiff.apply

    def count(model, variables, *arguments, method, rngs):
        traced.append(method)
        return apply(model, variables, *arguments, method=method, rngs=rngs)

    monkeypatch.setattr(TransDiff, "apply", count)
    write_neighbour_groups(source, tmp_path / "a", 4, "error", features_of(run, mesh))
    assert len(np.unique(source.labels())) > 1
    assert traced == [TransDiff.start, TransDiff.extend]


def test_classes_that_are_too_small(source, mesh, tmp_path):
    with pytest.raises(UserError, match="class 0 has 11, class 1 has 11"):
        write_random_groups(source, tmp_path / "a", 12, 0, "error")
    with pytest.raises(UserError, match="class 0 has 11, class 1 has 11"):
        write_neighbour_groups(source, tmp_path / "a", 12, "error")
    assert write_neighbour_groups(source, tmp_path / "a", 12, "repeat") == COUNT


def test_a_run_trains_on_the_groups_of_an_index(source, weights, tmp_path):
    write_neighbour_groups(source, tmp_path / "a", 2, "error")
    data = {"source": f"latents:{source.folder}", "groups": f"index:{tmp_path / 'a'}"}
    expected = {tuple(group) for group in read(tmp_path / "a", source, 2).tolist()}
    rows = TrainingData(photo_config(weights, mrar=True, data=data), tmp_path)
    seen = [tuple(row) for _ in range(11) for row in next(rows)["index"].tolist()]
    rows.close()
    assert set(seen) == expected
    assert max(seen.count(group) for group in expected) == 4, "four epochs of 22 rows are 11 batches of 8"
