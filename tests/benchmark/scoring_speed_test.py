import jax
import pytest

from tests.support.machines import shrink
from tests.support.networks import projection
from transdiff_jax.benchmark import scoring_speed
from transdiff_jax.config import MeshConfig
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation import set_features
from transdiff_jax.parallel.mesh import make_mesh

MESH = make_mesh(MeshConfig())


@pytest.fixture
def small(monkeypatch):
    compute, params, _ = projection(4)
    monkeypatch.setattr(set_features, "inception_features", compute)
    monkeypatch.setattr(scoring_speed, "_random_params", lambda: params)


@pytest.mark.usefixtures("small")
def test_record():
    record = scoring_speed.benchmark_evaluate(MESH, image_size=4, batch_size=16, repetitions=3)
    assert (record["what"], record["devices"], record["jax"]) == ("evaluate", 8, jax.__version__)
    assert (record["batch_size"], record["image_size"], record["images"]) == (16, 4, 48)
    assert record["images_per_second"] == pytest.approx(16 / record["seconds_per_batch"])
    assert record["seconds"] >= record["seconds_per_batch"] > 0


@pytest.mark.usefixtures("small")
def test_a_batch_that_does_not_split():
    with pytest.raises(UserError, match="batch_size=12 must be divisible by 8"):
        scoring_speed.benchmark_evaluate(MESH, image_size=4, batch_size=12, repetitions=3)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("settings", "what"), [((4, 2**20), "Inception"), ((2**14, 64), "the benchmark")])
def test_what_fits_no_memory_is_one_line(monkeypatch, settings, what):
    shrink(monkeypatch, 2**30)
    size, batch = settings
    with pytest.raises(UserError, match=f"^{what} takes at least .* GiB of "):
        scoring_speed.benchmark_evaluate(MESH, image_size=size, batch_size=batch, repetitions=3)
