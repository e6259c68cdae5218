import json

import jax
import numpy as np
import pytest

from tests.support.configs import tiny_config
from transdiff_jax.benchmark import measuring
from transdiff_jax.benchmark.flops import NAIVE, sample_flops
from transdiff_jax.benchmark.sampling_speed import benchmark_sample, labels_of
from transdiff_jax.config import MeshConfig
from transdiff_jax.errors import UserError
from transdiff_jax.parallel.mesh import make_mesh

CONFIG = tiny_config(sampling={"steps": 2, "guidance": (1.5,), "batch_size": 8})


def mesh(devices=1):
    return make_mesh(MeshConfig(), jax.devices()[:devices])


def run(config=CONFIG, devices=1, **settings):
    settings = {"repetitions": 1, "compare_naive": False, "flops_only": False} | settings
    return benchmark_sample(config, mesh(devices), **settings)


@pytest.fixture
def small_peak(monkeypatch):
    monkeypatch.setitem(measuring.PEAK_SIZE, "cpu", 64)


def test_flops_alone_run_nothing(monkeypatch):
    monkeypatch.setattr(jax, "jit", None)
    record = run(flops_only=True)
    # Two classes are encoded for eight images: their one class and the null class.
    assert record["flops_per_image"] == sample_flops(CONFIG.model, CONFIG.sampling, classes_per_sample=2 / 8)
    assert record["naive_flops_per_image"] == sample_flops(CONFIG.model, CONFIG.sampling, NAIVE)
    assert record["flops_by_saving"]["cache"] == record["flops_per_image"]
    assert record["images_per_second"] is record["mfu"] is record["compile_seconds"] is None
    assert json.loads(json.dumps(record))["model"]["width"] == 16


@pytest.mark.parametrize("devices", [1, 4])
def test_measures(small_peak, devices):
    record = run(devices=devices)
    assert record["devices"] == devices
    assert record["images_per_second"] == pytest.approx(8 / record["seconds_per_batch"])
    assert record["seconds_per_step"] == pytest.approx(record["seconds_per_batch"] / 2)
    speed = record["flops_per_image"] * record["images_per_second"]
    assert record["mfu"] == pytest.approx(speed / record["peak_flops"] / devices)
    assert record["compile_seconds"] > 0
    assert record["compiled_memory_bytes"] > 0
    assert record["naive_images_per_second"] is record["speedup"] is None


def test_compares_with_the_naive_sampler(small_peak):
    record = run(compare_naive=True)
    assert record["speedup"] == pytest.approx(record["images_per_second"] / record["naive_images_per_second"])


def test_decoding_is_timed_on_request(small_peak):
    record = run(decode=True)
    assert record["decode_seconds"] > 0
    assert run(flops_only=True)["decode_seconds"] is None


def test_labels_are_those_of_a_published_set():
    config = tiny_config(sampling={"batch_size": 520}, model={"num_classes": 10})
    np.testing.assert_array_equal(labels_of(config)[[0, 49, 50, 499, 500]], [0, 0, 1, 9, 0])


def test_batch_that_does_not_divide():
    with pytest.raises(UserError, match=r"^batch_size=8 must be divisible by 3"):
        run(devices=3, flops_only=True)
