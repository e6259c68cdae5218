import dataclasses
import math

import flax.linen as nn
import jax
import pytest

from tests.support.annotations import unchecked
from tests.support.paths import CONFIGS
from transdiff_jax.config import Config, SamplingConfig, load_config_dict, make_config
from transdiff_jax.convert.transdiff_names import name_table
from transdiff_jax.errors import UserError
from transdiff_jax.model.params import init_shapes
from transdiff_jax.model.variants import (
    KINDS,
    SAMPLING,
    SIZES,
    published_heads,
    published_model,
    published_sampling,
)
from transdiff_jax.training.optimizer import make_schedule

# The release's counts. They include an image projection that its 1-step models never read and ours omit.
COUNTS = {
    ("b", "one_step_256"): 289_959_184,
    ("l", "one_step_256"): 682_519_568,
    ("h", "one_step_256"): 1_327_891_216,
    ("b", "mrar_256"): 290_044_432,
    ("l", "mrar_256"): 682_633_232,
    ("h", "mrar_256"): 1_328_033_296,
    ("b", "one_step_512"): 290_549_008,
    ("l", "one_step_512"): 683_306_000,
    ("h", "one_step_512"): 1_328_874_256,
}


def test_every_size_and_kind_is_counted():
    assert set(COUNTS) == {(size, kind) for size in SIZES for kind in KINDS}


@pytest.mark.parametrize(("size", "kind"), COUNTS)
def test_parameter_count_is_the_published_one(size, kind):
    config = published_model(size, kind)
    params = nn.unbox(init_shapes(config))
    unused = sum(math.prod(tensor.shape) for tensor in name_table(config).unused)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) + unused == COUNTS[size, kind]


def test_heads_follow_from_a_published_width_only():
    assert [published_heads(width) for width in (768, 1024, 1280, 1152)] == [12, 16, 16, None]


def test_sampling_settings_of_the_published_scores():
    settings = published_sampling(published_model("l", "mrar_256"))
    assert (settings.solver, settings.steps, settings.last_time) == ("euler_maruyama", 100, 0.04)
    assert (settings.guidance, settings.drift_scale, settings.noise_scale) == ((1.3,), 0.925, 0.95)
    assert published_sampling(published_model("h", "one_step_256")).guidance == (1.23,)
    assert published_sampling(published_model("h", "one_step_512")) == SamplingConfig()


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="model size 'xl' is not one of b, l, h"):
        published_model("xl", "mrar_256")
    with unchecked(), pytest.raises(UserError, match="model kind 'mrar' is not one of"):
        published_model("b", "mrar")


def test_default_model_is_the_smallest_published_one():
    assert published_model("b", "one_step_256") == Config().model


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("kind", "suffix", "recipe"),
    [
        ("one_step_256", "", {"steps": 500_000, "warmup": 62_500, "rate": 8e-4, "pairs": 4, "only": "all"}),
        ("mrar_256", "_mrar", {"steps": 25_000, "warmup": 6_250, "rate": 5e-5, "pairs": 2, "only": "all"}),
        ("one_step_512", "_512", {"steps": 93_750, "warmup": 6_250, "rate": 1e-4, "pairs": 4, "only": "decoder"}),
    ],
)
def test_config_files_are_the_published_recipes(size, kind, suffix, recipe):
    config = make_config(load_config_dict(CONFIGS / f"transdiff_{size}{suffix}.py").to_dict())
    assert dataclasses.replace(config.model, dtype="float32", remat="none") == published_model(size, kind)
    scored = size if (size, kind) in SAMPLING else "l"
    guidance, drift_scale, noise_scale = SAMPLING[scored, kind]
    assert config.sampling.guidance == (guidance,)
    assert (config.sampling.drift_scale, config.sampling.noise_scale) == (drift_scale, noise_scale)
    assert (config.sampling.solver, config.sampling.steps) == ("euler_maruyama", 100)
    schedule = make_schedule(config)
    assert (config.train.steps, config.optimizer.warmup_steps) == (recipe["steps"], recipe["warmup"])
    assert schedule(recipe["warmup"]) == pytest.approx(recipe["rate"])
    assert schedule(recipe["steps"]) == pytest.approx(recipe["rate"])
    assert (config.loss.pairs_per_latent, config.train.only) == (recipe["pairs"], recipe["only"])
    assert (config.train.batch_size, config.train.ema_rates) == (2048, (0.999 if suffix == "_512" else 0.9999,))
    assert (config.model.dtype, config.data.crop, config.data.flip) == ("bfloat16", "random", True)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kind", "suffix"), [("one_step_256", ""), ("mrar_256", "_mrar")])
def test_recipes_of_students_start_from_the_published_models(size, kind, suffix):
    config = make_config(load_config_dict(CONFIGS / f"transdiff_{size}{suffix}_student.py").to_dict())
    teacher = dataclasses.replace(config.model, flow_map=False, dtype="float32", remat="none", dropout=0.1)
    assert teacher == published_model(size, kind)
    assert config.train.init_from == f"runs/transdiff_{size}{suffix}"
    assert config.distillation.guidance == (1.0, 2.5)
    assert config.sampling.guidance == (SAMPLING[size, kind][0],)
    assert (config.sampling.solver, config.sampling.steps, config.train.only) == ("flow_map", 1, "decoder")
