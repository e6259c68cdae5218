import json

import jax
import numpy as np
import pytest

from tests.support.configs import tiny_config
from tests.support.slow import slow
from transdiff_jax.benchmark import measuring
from transdiff_jax.benchmark.flops import encoder_flops, training_flops
from transdiff_jax.benchmark.sampling_speed import benchmark_sample
from transdiff_jax.benchmark.training_speed import benchmark_train, random_batch
from transdiff_jax.config import MeshConfig
from transdiff_jax.errors import UserError
from transdiff_jax.parallel.arrays import batch_sharding
from transdiff_jax.parallel.mesh import make_mesh


def run(config, devices=1, **settings):
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    return benchmark_train(config, mesh, **{"repetitions": 1, "flops_only": False} | settings)


def test_flops_alone_run_nothing(monkeypatch, config):
    monkeypatch.setattr(jax, "jit", None)
    record = run(config, flops_only=True)
    assert record["flops_per_image"] == training_flops(config.model, 2) / config.model.num_images
    assert record["images_per_second"] is record["mfu"] is record["compile_seconds"] is None
    assert json.loads(json.dumps(record))["what"] == "train"


def test_a_frozen_encoder_has_no_backward_pass():
    config = tiny_config(train={"only": "decoder"})
    saved = training_flops(config.model, 2) - run(config, flops_only=True)["flops_per_image"]
    assert saved == 2 * encoder_flops(config.model, 1)


@pytest.mark.parametrize(("mrar", "devices"), [(False, 1), slow(True, 4)])
def test_measures(monkeypatch, mrar, devices):
    monkeypatch.setitem(measuring.PEAK_SIZE, "cpu", 64)
    config = tiny_config(mrar)
    record = run(config, devices)
    assert record["devices"] == devices
    assert record["images_per_second"] == pytest.approx(8 * config.model.num_images / record["seconds_per_step"])
    speed = record["flops_per_image"] * record["images_per_second"]
    assert record["mfu"] == pytest.approx(speed / record["peak_flops"] / devices)
    assert record["compile_seconds"] > 0
    assert record["compiled_memory_bytes"] > 0


def test_fields_of_every_measurement_are_there():
    config, mesh = tiny_config(), make_mesh(MeshConfig(), jax.devices()[:1])
    sampling = benchmark_sample(config, mesh, repetitions=1, compare_naive=False, flops_only=True)
    assert {*measuring.MEASURED, "device", "devices", "mesh", "jax", "batch_size", "model"} <= sampling.keys()
    assert {*measuring.MEASURED, "device", "devices", "mesh", "jax", "batch_size"} <= run(
        config, flops_only=True
    ).keys()


def test_batches_are_those_of_the_tokenizer():
    mesh = make_mesh(MeshConfig())
    batch = random_batch(tiny_config(mrar=True), mesh)
    assert {name: value.shape for name, value in batch.items()} == {"image": (8, 4, 8, 8, 1), "label": (8,)}
    assert batch["image"].dtype == np.uint8
    assert np.ptp(batch["image"]) > 200
    assert all(value.sharding == batch_sharding(mesh) for value in batch.values())
    kl16 = tiny_config(tokenizer={"kind": "kl16"}, data={"image_size": 64}, model={"latent_size": 4})
    assert measuring.batch_shapes(kl16, mesh)["moments"].shape == (8, 1, 4, 4, 8)


def test_batch_that_does_not_divide():
    with pytest.raises(UserError, match=r"^batch_size=8 must be divisible by 3"):
        run(tiny_config(), devices=3, flops_only=True)
