import jax
import numpy as np
import pytest

from tests.support.configs import tiny_config
from tests.support.machines import shrink
from transdiff_jax.benchmark.measuring import batch_shapes, lower, weightless_tokenizer
from transdiff_jax.benchmark.sampling_speed import jit_sampler
from transdiff_jax.config import MeshConfig, make_config
from transdiff_jax.errors import UserError
from transdiff_jax.model.needs import (
    check_input_memory,
    check_sampling_memory,
    check_training_memory,
    sampling_needs,
    training_needs,
)
from transdiff_jax.model.params import abstract_params
from transdiff_jax.model.recipes import published_recipe
from transdiff_jax.parallel import memory
from transdiff_jax.parallel.arrays import batch_sharding, replicated
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.training.state import abstract_state
from transdiff_jax.training.step import jit_train_step

COMPILED = [MeshConfig(data=2, fsdp=2, tensor=2), pytest.param(MeshConfig(data=8), marks=pytest.mark.slow)]
MESHES = [MeshConfig(), MeshConfig(data=1, fsdp=8), MeshConfig(data=2, fsdp=2, tensor=2)]


def one_device():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("only", ["all", "decoder"])
def test_the_state_counts_as_the_devices_will_hold_it(mesh, only):
    mesh = make_mesh(mesh)
    config = tiny_config(mrar=True, train={"only": only, "ema_rates": (0.5, 0.9)})
    needs = training_needs(config, mesh)
    state = abstract_state(config, mesh)
    kept = needs["parameters"] + needs["averages"] + needs["moments of AdamW"]
    assert 0 <= memory.held_bytes(state) - kept <= 64  # counters


def plan_bytes(jitted, *arguments):
    """What the compiler plans for a program, with its arguments."""
    plan = lower(jitted, *arguments).compile().memory_analysis()
    return plan.argument_size_in_bytes + plan.temp_size_in_bytes


@pytest.mark.parametrize("mesh", COMPILED)
def test_a_compiled_step_takes_at_least_what_is_counted(mesh):
    mesh = make_mesh(mesh)
    config = tiny_config(mrar=True, model={"remat": "full"}, train={"batch_size": 2048, "accumulation": 2})
    needs = training_needs(config, mesh)
    assert needs["activations"] > 10 * needs["parameters"]
    arguments = abstract_state(config, mesh), batch_shapes(config, mesh), weightless_tokenizer(config.tokenizer)
    planned = plan_bytes(jit_train_step(config, mesh), *arguments)
    assert sum(needs.values()) <= planned
    assert planned < 100 * sum(needs.values())  # so that the count is not far from what decides


@pytest.mark.parametrize("mesh", COMPILED)
def test_a_compiled_sampler_takes_at_least_what_is_counted(mesh):
    mesh = make_mesh(mesh)
    config = tiny_config(mrar=True, sampling={"batch_size": 512, "steps": 200, "guidance": (1.5,)})
    needs = sampling_needs(config, mesh)
    assert needs["keys and values"] > needs["parameters"]
    rows = jax.ShapeDtypeStruct((512,), np.int32, sharding=batch_sharding(mesh))
    seed = jax.ShapeDtypeStruct((), np.int32, sharding=replicated(mesh))
    jitted = jit_sampler(config, mesh, naive=False)
    planned = plan_bytes(jitted, abstract_params(config.model, mesh), rows, seed, rows)
    assert sum(needs.values()) <= planned
    assert planned < 100 * sum(needs.values())


def changed(**sections):
    values = tiny_config().to_dict()
    for section, fields in sections.items():
        values[section] |= fields
    return make_config(values)


@pytest.mark.parametrize(
    ("sections", "names"),
    [
        ({"model": {"width": 2**16}}, ["parameters", "averages", "moments of AdamW"]),
        ({"train": {"batch_size": 2**24}, "data": {"image_size": 128}, "model": {"latent_size": 64}}, ["its rows"]),
        ({"train": {"batch_size": 2**23}}, ["activations"]),
        ({"loss": {"pairs_per_latent": 2**16}, "train": {"batch_size": 2**10}}, ["activations"]),
    ],
)
def test_training_that_fits_no_machine_is_one_line_before_anything_is_made(monkeypatch, sections, names):
    shrink(monkeypatch, 2**35)
    with pytest.raises(UserError, match=r" takes at least [\d,]+\.\d GiB of .*, which has [\d,.]+ GiB \(") as caught:
        check_training_memory(changed(**sections), one_device())
    assert all(f"{name} " in str(caught.value) for name in names)
    assert "\n" not in str(caught.value)


def test_the_mask_of_mrar_counts(monkeypatch):
    shrink(monkeypatch, 2**35)
    config = tiny_config(mrar=True, loss={"pairs_per_latent": 2**16}, train={"batch_size": 1})
    check_input_memory(config)
    shrink(monkeypatch, 2**20)
    with pytest.raises(UserError, match=r"^training takes at least 64\.0 MiB of host memory, .*mask of MRAR 64\.0 MiB"):
        check_training_memory(config, one_device())


@pytest.mark.parametrize(
    ("sampling", "name"),
    [({"batch_size": 2**24}, "keys and values"), ({"steps": 10**5}, "table of times")],
)
def test_sampling_that_fits_no_machine_is_one_line(monkeypatch, sampling, name):
    shrink(monkeypatch, 2**25)
    with pytest.raises(UserError, match=f"^sampling takes at least .*{name}"):
        check_sampling_memory(changed(sampling=sampling), one_device())


def test_a_mesh_that_splits_the_model_holds_what_one_device_does_not(monkeypatch):
    monkeypatch.setattr(memory, "device_memory", lambda mesh: 4 * 2**30)
    config = published_recipe("b", "one_step_256")
    config.train.batch_size = 8
    config = make_config(config.to_dict())
    check_training_memory(config, make_mesh(MeshConfig(data=1, fsdp=8)))
    with pytest.raises(UserError, match=r"of each device \(8 x cpu\)"):
        check_training_memory(config, make_mesh(MeshConfig()))
