import jax
import pytest

from tests.support.configs import tiny_config
from tests.support.slow import slow
from tests.support.students import student_config
from transdiff_jax.benchmark import measuring
from transdiff_jax.benchmark.aot import benchmark_aot
from transdiff_jax.benchmark.chips import CHIPS
from transdiff_jax.benchmark.flops import condition_flops, encoder_flops, sample_flops, time_flops, velocity_flops
from transdiff_jax.benchmark.student_step import frozen_shapes, objective_of, student_flops
from transdiff_jax.benchmark.training_speed import benchmark_train
from transdiff_jax.config import MeshConfig
from transdiff_jax.parallel.memory import held_bytes
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.training.state import abstract_state


def parts(config):
    """FLOPs of a pass, and of keys and values."""
    model, tokens = config.model, config.model.semantic_tokens
    return velocity_flops(model, tokens) + time_flops(model), condition_flops(model, tokens)


def test_flops_of_each_objective():
    config = student_config()
    one_pass, condition = parts(config)
    # Three for what learns, on two inputs; the teacher's pair for one of them, two half jumps for the other.
    assert student_flops(config) == 6 * condition + 10 * one_pass
    guidance = student_config(distillation={"objective": "guidance"}, sampling={"solver": "heun"})
    assert student_flops(guidance) == 5 * condition + 10 * one_pass
    # 13 steps of a guided pair.
    trajectory = student_config(distillation={"objective": "trajectory"})
    assert student_flops(trajectory) == 5 * condition + 32 * one_pass


def test_flops_of_sequences():
    config = student_config(mrar=True)
    one_pass, condition = parts(config)
    encoder = 2 * encoder_flops(config.model, 4)
    assert student_flops(config) == 6 * condition + 4 * 10 * one_pass + encoder
    own = student_config(mrar=True, distillation={"references": "teacher"})
    settings = objective_of(own).teacher.sampling
    assert (settings.solver, settings.steps, settings.guidance) == ("dpmpp_2m", 13, (1.5,))
    sampled = sample_flops(tiny_config(mrar=True).model, settings, classes_per_sample=1)
    assert student_flops(own) == student_flops(config) + sampled


def test_no_student_reads_nothing():
    mesh = make_mesh(MeshConfig())
    assert objective_of(tiny_config()) is None
    assert frozen_shapes(tiny_config(), mesh) == ()


@pytest.mark.parametrize("mrar", [False, slow(True)])
def test_a_student_is_compiled_ahead_of_time(mrar):
    config = student_config(mrar, mesh={"fsdp": 4})
    record = benchmark_aot(config, jax.devices(), CHIPS["h100"], "train")
    assert record["flops_per_image"] == student_flops(config) / config.model.num_images
    mesh = make_mesh(config.mesh)
    (frozen,) = frozen_shapes(config, mesh)
    assert record["memory"]["arguments"] > held_bytes(abstract_state(config, mesh)) + held_bytes(frozen.decoder)


@pytest.mark.slow
def test_a_student_is_measured(monkeypatch):
    monkeypatch.setitem(measuring.PEAK_SIZE, "cpu", 64)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    record = benchmark_train(student_config(), mesh, repetitions=1, flops_only=False)
    assert record["images_per_second"] == pytest.approx(8 / record["seconds_per_step"])
