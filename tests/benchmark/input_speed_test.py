import jax
import pytest

from tests.support.configs import tiny_config
from tests.support.machines import shrink
from transdiff_jax.benchmark import input_speed as benchmark_data
from transdiff_jax.config import MeshConfig
from transdiff_jax.data.sources.digits import prepare_digits
from transdiff_jax.errors import UserError
from transdiff_jax.parallel.mesh import make_mesh


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    prepare_digits(str(folder))
    return folder


def run(directory, mrar=False, devices=1, **settings):
    config = tiny_config(mrar, data={"directory": str(directory), "read_threads": 2})
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    settings = {"repetitions": 3, "compare_train": False} | settings
    return benchmark_data.benchmark_data(config, mesh, **settings)


@pytest.mark.parametrize("mrar", [False, True], ids=["one_step", "mrar"])
def test_input_alone(directory, mrar, monkeypatch):
    monkeypatch.setattr(jax, "jit", None)
    record = run(directory, mrar)
    images = 4 if mrar else 1
    assert record["records_per_second"] == pytest.approx(8 * images / record["seconds_per_batch"])
    assert (record["batch_size"], record["read_threads"], record["source"]) == (8, 2, "digits")
    common = ("images_per_second", "seconds_per_step", "flops_per_image", "peak_flops", "mfu", "peak_memory_bytes")
    assert {record[name] for name in (*common, "compile_seconds", "input_share")} == {None}


def test_slow_input_shows(directory, monkeypatch):
    class Slow(benchmark_data.TrainingData):
        def __next__(self):
            benchmark_data.time.sleep(0.2)
            return super().__next__()

    monkeypatch.setattr(benchmark_data, "TrainingData", Slow)
    assert 0.2 <= run(directory)["seconds_per_batch"] < 2


@pytest.mark.slow
def test_beside_the_training_step(directory):
    record = run(directory, devices=2, compare_train=True)
    assert record["images_per_second"] == pytest.approx(8 / record["seconds_per_step"])
    need, supply = record["images_per_second"], record["records_per_second"]
    assert record["input_share"] == pytest.approx(need / supply)
    assert record["compile_seconds"] > 0


def test_batch_that_does_not_divide(directory):
    with pytest.raises(UserError, match=r"^batch_size=8 must be divisible by 3"):
        run(directory, devices=3, compare_train=True)


@pytest.mark.parametrize(("compare", "size", "what"), [(False, 2**8, "a training batch"), (True, 2**13, "training")])
def test_what_fits_no_memory_is_one_line(directory, monkeypatch, compare, size, what):
    shrink(monkeypatch, size)
    with pytest.raises(UserError, match=f"^{what} takes at least "):
        run(directory, compare_train=compare)
