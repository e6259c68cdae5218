import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.annotations import unchecked
from tests.support.collectives import moved
from tests.support.configs import tiny_config
from tests.support.meshes import over_shards
from tests.support.noise import INDICES, STEPS, draws
from tests.support.parameters import random_params
from tests.support.slow import slow
from transdiff_jax.benchmark.collectives import collectives
from transdiff_jax.benchmark.flops import evaluations
from transdiff_jax.benchmark.hlo import parse
from transdiff_jax.config import MeshConfig, SamplingConfig
from transdiff_jax.flow.guidance import interleave
from transdiff_jax.flow.path import sde_drift
from transdiff_jax.flow.solvers import Solver
from transdiff_jax.flow.timesteps import solver_grid
from transdiff_jax.images.uint8 import to_uint8
from transdiff_jax.model.decoder import TimeCondition
from transdiff_jax.model.encoder import Prefix
from transdiff_jax.model.params import init_shapes
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.nn.attention import KeysValues
from transdiff_jax.nn.patches import unpatchify
from transdiff_jax.parallel.arrays import batch_sharding, tree_shardings
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.sampling import mrar
from transdiff_jax.sampling import sampler as sampler_module
from transdiff_jax.sampling.fusion import draw_splice
from transdiff_jax.sampling.mrar import sample_latents
from transdiff_jax.sampling.naive import naive_latents
from transdiff_jax.sampling.noise import GivenNoise, SeededNoise
from transdiff_jax.sampling.sampler import make_sampler
from transdiff_jax.sampling.time_table import time_table
from transdiff_jax.training.state import abstract_state

# Four heads, which tensor parallelism can split over four devices.
ONE_STEP, MRAR = (
    tiny_config(mrar, model={"heads": 4}, sampling={"steps": STEPS, "guidance": (1.5,), "noise_scale": 0.9})
    for mrar in (False, True)
)
LABELS = np.array([3, 0, 9, 3, 7, 1, 5, 2], np.int32)


@pytest.fixture(params=[ONE_STEP, MRAR], ids=["one_step", "mrar"])
def config(request):
    return request.param


@functools.partial(jax.jit, static_argnames=("model", "config"))
def latents_of(model, config, params, labels, noise):
    return sample_latents(TransDiff(model), params, labels, noise, config)


@functools.cache
def sampler_on(config, devices):
    return make_sampler(config, make_mesh(MeshConfig(), jax.devices()[:devices]), all_images=True)


@functools.cache
def images_on_one_device(config):
    return np.asarray(sampler_on(config, 1)(random_params(config.model), LABELS, 5, INDICES).images)


# --- latents ---


def test_given_and_seeded_noise_give_the_same(config):
    params = random_params(config.model)
    initial, steps = draws(5, INDICES)
    seeded = latents_of(config.model, config.sampling, params, LABELS, SeededNoise(jnp.int32(5), jnp.asarray(INDICES)))
    given = latents_of(config.model, config.sampling, params, LABELS, GivenNoise(initial, steps))
    assert seeded.shape == (8, config.model.num_images, 4, 4, 4)
    assert seeded.dtype == jnp.float32
    np.testing.assert_allclose(given, seeded, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weights", [slow((1.0,)), slow((1.5,)), (1.0, 1.5, 3.0, 1.0)], ids=str)
def test_mrar_literal(weights):
    # Nothing is shared: every image encodes all groups anew, and each half of a guided pair runs alone.
    settings = dataclasses.replace(MRAR.sampling, guidance=weights, drift_scale=0.87, noise_scale=0.9)
    params, model = random_params(MRAR.model), TransDiff(MRAR.model)
    initial, noise = draws(5, INDICES)

    @jax.jit
    def network(x, t, null, references):
        features = model.apply(
            {"params": params}, jnp.asarray(LABELS), null, references, method=TransDiff.encode
        ).features
        keys_values = model.apply({"params": params}, features, method=TransDiff.condition)
        timesteps = jnp.full((8, 1), 1000.0 * t)
        return model.apply({"params": params}, x[:, None], timesteps, keys_values, method=TransDiff.velocity)[:, 0]

    keep, drop = jnp.zeros(8, bool), jnp.ones(8, bool)
    times, images = [*np.linspace(1, 0.04, STEPS), 0.0], []
    for image, weight in enumerate(weights if len(weights) > 1 else weights * 4):
        references = jnp.stack(images, axis=1) if images else None
        x = initial
        for k in range(STEPS):
            t, dt = float(times[k]), float(times[k + 1] - times[k])
            drift = sde_drift(network(x, t, keep, references), x, t)
            if weight > 1:
                unconditional = sde_drift(network(x, t, drop, references), x, t)
                drift = unconditional + weight * (drift - unconditional)
            last = k == STEPS - 1
            diffusion = 0 if last else 0.9 * (2 * t) ** 0.5 * noise[image, k] * abs(dt) ** 0.5
            x = x + (1 if last else 0.87) * drift * dt + diffusion
        images.append(x.reshape(8, 4, 4, 4))
    made = latents_of(MRAR.model, settings, params, LABELS, GivenNoise(initial, noise))
    np.testing.assert_allclose(made, np.stack(images, axis=1), rtol=1e-3, atol=1e-3)


def sample_over(shards, *arguments, **more):
    with over_shards(shards):
        return sample_latents(*arguments, **more)


CACHED_AND_NAIVE = {
    "one_step": (ONE_STEP.model, (1.5,), 1),
    "one_step_shards": slow(ONE_STEP.model, (1.5,), 4),
    "one_step_unguided": slow(ONE_STEP.model, (1.0,), 1),
    "mrar_shards": (MRAR.model, (1.5,), 4),
    "mrar_unguided": slow(MRAR.model, (1.0,), 1),
    "mrar_weights": (MRAR.model, (1.0, 1.5, 3.0, 1.0), 1),
}


@pytest.mark.parametrize(("model", "weights", "shards"), CACHED_AND_NAIVE.values(), ids=CACHED_AND_NAIVE.keys())
def test_cached_is_uncached(model, weights, shards):
    settings = dataclasses.replace(ONE_STEP.sampling, guidance=weights)
    params, noise = random_params(model), GivenNoise(*draws(5, INDICES))

    @functools.partial(jax.jit, static_argnums=0)
    def latents(sample, labels):
        return sample(TransDiff(model), params, labels, noise, settings)

    cached = functools.partial(sample_over, shards)
    # In the first labels classes repeat within a device's rows and across devices; in the second all rows differ.
    for labels in (np.array([3, 3, 9, 0, 9, 9, 0, 3]), np.array([1, 0, 9, 3, 7, 8, 5, 2])):
        assert_close(latents(cached, labels), latents(naive_latents, labels))


def assert_close(made, expected):
    assert np.abs(np.asarray(made) - expected).max() < 1e-5 * np.abs(expected).max()


BY_TIME = {
    "interval": slow({"guidance_interval": (0.3, 0.8)}),
    "interval_of_no_time": slow({"guidance_interval": (0.6, 0.7)}),
    "linear": slow({"guidance_schedule": "linear", "guidance": (2.5,)}),
    "power_cosine": {"guidance_schedule": "power_cosine", "guidance_power": 2.0, "guidance": (1.5, 1.0, 3.0, 2.0)},
    "heun": slow({"solver": "heun", "guidance_interval": (0.2, 0.8)}),
    "dpmpp_2m": {"solver": "dpmpp_2m", "steps_by_image": (1, 2, 3, 5), "guidance_interval": (0.0, 0.5)},
    "steps_by_image": slow({"steps_by_image": (1, 3, 2, 3)}),
}


@pytest.mark.parametrize("changes", BY_TIME.values(), ids=BY_TIME)
def test_cached_is_uncached_whatever_the_settings(changes):
    settings = dataclasses.replace(MRAR.sampling, **changes)
    params, noise = random_params(MRAR.model), GivenNoise(*draws(5, INDICES))

    @functools.partial(jax.jit, static_argnums=0)
    def latents(sample):
        return sample(TransDiff(MRAR.model), params, LABELS, noise, settings)

    assert_close(latents(sample_latents), latents(naive_latents))


# --- given images ---


@functools.partial(jax.jit, static_argnames=("sample", "settings"))
def latents_after(sample, settings, params, noise, references):
    return sample(TransDiff(MRAR.model), params, LABELS, noise, settings, references=references)


@pytest.mark.parametrize("given", [slow(1), slow(2), 3])
def test_after_the_samplers_own_images_come_the_same(given):
    params, noise = random_params(MRAR.model), GivenNoise(*draws(5, INDICES))
    expected = latents_of(MRAR.model, MRAR.sampling, params, LABELS, noise)
    made = latents_after(sample_latents, MRAR.sampling, params, noise, expected[:, :given])
    np.testing.assert_array_equal(made[:, :given], expected[:, :given])
    assert_close(made, expected)
    changed = latents_after(sample_latents, MRAR.sampling, params, noise, expected[:, :given] + 0.5)
    assert np.abs(changed[:, -1] - expected[:, -1]).max() > 1e-2


def test_images_after_given_ones_cached_and_not():
    settings = dataclasses.replace(MRAR.sampling, guidance=(1.0, 3.0, 1.5, 2.0), steps_by_image=(9, 9, 1, 2))
    params, noise = random_params(MRAR.model), GivenNoise(*draws(5, INDICES))
    given = jax.random.normal(jax.random.key(0), (8, 2, 4, 4, 4))
    ours, naive = (latents_after(sample, settings, params, noise, given) for sample in (sample_latents, naive_latents))
    assert_close(ours, naive)


@pytest.mark.parametrize("shape", [(8, 4, 4, 4, 4), (8, 0, 4, 4, 4), (4, 1, 4, 4, 4)])
def test_references_must_fit(shape):
    noise = GivenNoise(*draws(5, INDICES))
    with unchecked(), pytest.raises(ValueError, match=r"must be at least one and at most 3 for each of 8 samples"):
        sample_latents(
            TransDiff(MRAR.model), random_params(MRAR.model), LABELS, noise, MRAR.sampling, references=jnp.zeros(shape)
        )


# --- fused classes ---


SPLICE = np.random.default_rng(0).random((8, 16)) < 0.4
PAIRS = np.stack([LABELS, (LABELS * 3 + 1) % 10], axis=1)


@pytest.mark.parametrize("model", [slow(ONE_STEP.model), MRAR.model], ids=["one_step", "mrar"])
@pytest.mark.parametrize(("weight", "shards"), [slow(1.0, 1), (1.5, 4)])
def test_fused_features_cached_and_not(model, weight, shards):
    settings = dataclasses.replace(ONE_STEP.sampling, guidance=(weight,))
    params, noise = random_params(model), GivenNoise(*draws(5, INDICES))

    @functools.partial(jax.jit, static_argnums=0)
    def latents(sample):
        return sample(TransDiff(model), params, PAIRS, noise, settings, splice=SPLICE)

    assert_close(latents(functools.partial(sample_over, shards)), latents(naive_latents))


@pytest.mark.parametrize("config", [ONE_STEP, slow(MRAR)], ids=["one_step", "mrar"])
def test_a_whole_splice_is_one_of_the_classes(config):
    params, noise = random_params(config.model), GivenNoise(*draws(5, INDICES))

    @jax.jit
    def latents(labels, splice):
        return sample_latents(TransDiff(config.model), params, labels, noise, config.sampling, splice)

    for column in (0, 1):
        expected = latents_of(config.model, config.sampling, params, PAIRS[:, column], noise)
        assert_close(latents(PAIRS, np.full((8, 16), column == 1)), expected)


def test_labels_and_splice_must_fit(config):
    model, noise = TransDiff(config.model), GivenNoise(*draws(5, INDICES))
    for labels, splice, message in (
        (PAIRS, None, r"labels must be \[b\], or \[b, 2\] with a splice \(8, 16\), got \(8, 2\) without"),
        (LABELS, SPLICE, r"a splice must be \(8, 16\) for labels \(8, 2\), got \(8, 16\), \(8,\)"),
        (PAIRS, SPLICE[:, :4], r"a splice must be \(8, 16\) for labels \(8, 2\), got \(8, 4\), \(8, 2\)"),
    ):
        with unchecked(), pytest.raises(ValueError, match=message):
            sample_latents(model, random_params(config.model), labels, noise, config.sampling, splice=splice)


def test_splices_are_drawn_by_sample_and_seed():
    model = dataclasses.replace(ONE_STEP.model, tokens_per_image=256)
    half, again, less, other = (
        np.asarray(draw_splice(model, seed, jnp.asarray(indices), fraction))
        for seed, indices, fraction in (
            (5, INDICES, 0.5),
            (5, INDICES[::-1], 0.5),
            (5, INDICES, 0.1),
            (6, INDICES, 0.5),
        )
    )
    assert half.shape == (8, 256)
    np.testing.assert_array_equal(half, again[::-1])
    assert abs(half.mean() - 0.5) < 0.05 and abs(less.mean() - 0.1) < 0.05
    assert len(np.unique([*half, *other], axis=0)) == 16
    for fraction in (0.0, 1.0):
        assert (np.asarray(draw_splice(model, 5, INDICES, fraction)) == fraction).all()


@pytest.mark.parametrize("config", [ONE_STEP, slow(MRAR)], ids=["one_step", "mrar"])
def test_sampler_fuses_pairs_of_labels(config):
    sampler, params = sampler_on(config, 8), random_params(config.model)
    made = np.asarray(sampler(params, PAIRS, 5, INDICES).images).astype(int)
    splice = draw_splice(config.model, 5, INDICES, 0.5)
    latents = sample_latents(
        TransDiff(config.model),
        params,
        PAIRS,
        SeededNoise(jnp.int32(5), jnp.asarray(INDICES)),
        config.sampling,
        splice=splice,
    )
    expected = np.clip(255 * (np.asarray(unpatchify(latents, 2)) + 1) / 2, 0, 255)
    assert np.abs(made - expected).max() < 1.5
    assert np.abs(made - images_on_one_device(config)).max() > 10


# --- which network passes are made ---


class StandInModel:
    """Stands for TransDiff; notes how many rows each method is traced with."""

    def __init__(self, config):
        self.config, self.rows = config, []

    @property
    def __class__(self):  # so that checks of types accept it
        return TransDiff

    def apply(self, variables, *arguments, method, rngs):
        return getattr(self, method.__name__)(*arguments)

    def embed_times(self, timesteps):
        self.timesteps = timesteps
        return TimeCondition(timesteps[:, None, None, None], timesteps[:, None, None])

    def step_weights(self):
        return {}

    def start(self, labels, null):
        return Prefix(jnp.where(null, -1.0, labels)[:, None, None], None)

    def condition(self, features):
        self.rows.append(("condition", len(features)))
        return KeysValues(features[None], features[None])

    def velocity_at(self, x, time, keys_values):
        (self.keys_values,) = keys_values
        pair = len(self.keys_values.key) == 2 * len(x)
        self.rows.append(("pair" if pair else "velocity_at", len(x)))
        return interleave(x, x) if pair else x


@pytest.mark.parametrize(("weight", "null"), [(1.0, []), (1.25, [("condition", 1)])])
def test_weight_one_is_one_pass(weight, null):
    model = StandInModel(ONE_STEP.model)
    initial, steps = draws(0, INDICES[:2])
    settings = SamplingConfig(steps=STEPS, guidance=(weight,))
    with jax.disable_jit():
        sample_latents(model, {}, jnp.array([4, 6]), GivenNoise(initial, steps), settings)
    assert model.rows == [("condition", 2), *null, *[("pair" if null else "velocity_at", 2)] * STEPS]
    np.testing.assert_allclose(model.timesteps, [40, 520, 1000], rtol=1e-6)
    assert model.keys_values.key.ravel().tolist() == ([4, -1, 6, -1] if null else [4, 6])


@pytest.mark.parametrize("solver", mrar.SOLVERS)
@pytest.mark.parametrize("interval", [(0.3, 0.7), (0.9, 1.0), (0.41, 0.42)])
def test_unconditional_half_is_skipped_where_guidance_is_off(solver, interval):
    settings = SamplingConfig(solver=solver, steps=5, guidance=(2.0,), guidance_interval=interval, last_time=0.2)
    model, noise = StandInModel(ONE_STEP.model), SeededNoise(jnp.int32(0), jnp.arange(2))
    with jax.disable_jit():
        sample_latents(model, {}, jnp.array([4, 6]), noise, settings)
    passes = [name for name, _ in model.rows if name != "condition"]
    times = mrar.SOLVERS[solver].times(solver_grid(settings))
    assert passes == ["pair" if interval[0] <= t <= interval[1] else "velocity_at" for t in times]
    # The FLOP count counts the same passes.
    assert evaluations(settings, False) == (passes.count("pair"), passes.count("velocity_at"))


def test_schedule_that_starts_at_one_skips_the_first_pair():
    settings = SamplingConfig(steps=3, guidance=(2.0,), guidance_schedule="linear")
    model, noise = StandInModel(ONE_STEP.model), SeededNoise(jnp.int32(0), jnp.arange(2))
    with jax.disable_jit():
        sample_latents(model, {}, jnp.array([4, 6]), noise, settings)
    assert [name for name, _ in model.rows][2:] == ["velocity_at", "pair", "pair"]


def test_each_image_takes_its_steps():
    settings = SamplingConfig(steps=9, steps_by_image=(1, 2, 3, 5))
    model = StandInModel(dataclasses.replace(ONE_STEP.model, num_images=4))
    with jax.disable_jit(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(mrar, "next_conditions", lambda model, params, conditions, image: conditions)
        sample_latents(model, {}, jnp.array([4, 6]), SeededNoise(jnp.int32(0), jnp.arange(2)), settings)
    assert len(model.rows) == 1 + 1 + 2 + 3 + 5


@pytest.mark.parametrize("solver", mrar.SOLVERS)
@pytest.mark.parametrize("steps", [1, 5])
def test_solvers_ask_for_times_of_the_table(solver, steps):
    settings = SamplingConfig(solver=solver, steps=steps)
    grid, table = solver_grid(settings), time_table(StandInModel(ONE_STEP.model), {}, settings)

    def velocity(x, t):
        return jnp.full_like(x, table.at(t).output[0, 0, 0])  # NaN for a time that is not in the table

    made = jax.jit(lambda x: mrar.SOLVERS[solver].solve(velocity, x, grid, lambda index: x))(jnp.ones((2, 3, 4)))
    assert np.isfinite(made).all()
    row = table.at(jnp.asarray(grid.time[-1]))
    assert row.output.shape == (1, 1, 1)
    assert row.blocks[0, 0, 0] == 1000 * grid.time[-1]
    assert np.isnan(table.at(jnp.asarray(grid.time[-1] + 1e-3)).output)


def test_solver_comes_from_the_configuration(monkeypatch):
    seen = []

    def solve(velocity, x, grid, noise):
        seen.append(grid.time.tolist())
        return x

    monkeypatch.setitem(mrar.SOLVERS, "euler", Solver(solve, lambda grid: grid.time))
    settings = SamplingConfig(solver="euler", steps=2, last_time=0.5)
    initial, steps = draws(0, INDICES[:2])
    latents = sample_latents(StandInModel(ONE_STEP.model), {}, jnp.array([4, 6]), GivenNoise(initial, steps), settings)
    assert seen == [[1.0, 0.5]]
    np.testing.assert_array_equal(latents[:, 0].reshape(2, 16, 4), initial)


# --- images ---


def test_images_are_the_decoded_latents(config):
    params = random_params(config.model)
    noise = SeededNoise(jnp.int32(5), jnp.asarray(INDICES))
    latents = latents_of(config.model, config.sampling, params, LABELS, noise)
    levels = np.clip(255 * (np.asarray(unpatchify(latents, 2)) + 1) / 2, 0, 255)
    images = images_on_one_device(config)
    assert images.shape == (8, config.model.num_images, 8, 8, 1)
    assert images.dtype == np.uint8
    assert np.abs(images - levels).max() < 0.55
    # Most pixels are not at a bound, so that they can show a difference.
    assert np.mean((images > 0) & (images < 255)) > 0.2


def test_same_compiled_batch_gives_identical_images(config):
    sample, params = sampler_on(config, 1), random_params(config.model)
    order = np.array([5, 2, 7, 0, 1, 6, 3, 4])
    mixed = sample(params, LABELS[order], 5, INDICES[order]).images
    np.testing.assert_array_equal(mixed, images_on_one_device(config)[order])
    labels, indices = LABELS.copy(), INDICES.copy()
    labels[1:], indices[1:] = 8, np.arange(100, 107)
    others = sample(params, labels, 5, indices).images
    np.testing.assert_array_equal(others[0], images_on_one_device(config)[0])
    assert (np.asarray(others[1:]) != images_on_one_device(config)[1:]).any(axis=(1, 2, 3, 4)).all()


def test_seed_and_label_matter(config):
    sample, params = sampler_on(config, 1), random_params(config.model)
    for made in (
        sample(params, LABELS, 6, INDICES),
        sample(params, (LABELS + 1) % 10, 5, INDICES),
    ):
        assert (np.asarray(made.images) != images_on_one_device(config)).any(axis=(1, 2, 3, 4)).all()


def test_only_the_last_image_is_decoded_unless_all_are_asked_for(config):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    made = make_sampler(config, mesh)(random_params(config.model), LABELS, 5, INDICES).images
    np.testing.assert_array_equal(made, images_on_one_device(config)[:, -1:])


def test_samples_that_are_not_finite_are_marked(config):
    params = random_params(config.model)
    poisoned = params["encoder"]["class_embedding"].at[LABELS[1]].set(jnp.nan)
    params = params | {"encoder": params["encoder"] | {"class_embedding": poisoned}}
    finite = sampler_on(config, 1)(params, LABELS, 5, INDICES).finite
    assert finite.tolist() == [label != LABELS[1] for label in LABELS]


@pytest.mark.parametrize("rows", [slow(1), 4])
def test_other_batch_sizes_differ_by_a_grey_level_at_most(config, rows):
    made = sampler_on(config, 1)(random_params(config.model), LABELS[:rows], 5, INDICES[:rows]).images
    difference = np.asarray(made).astype(int) - images_on_one_device(config)[:rows]
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("sizes", [slow((8, 1, 1)), slow((1, 8, 1)), slow((1, 1, 4)), (2, 2, 2)], ids=str)
def test_sharded_sampler_is_that_of_one_device(config, sizes, monkeypatch):
    alone = images_on_one_device(config)
    monkeypatch.setattr(sampler_module, "to_uint8", lambda pixels: pixels)  # rounding would hide small differences
    mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: math.prod(sizes)])
    boxed = init_shapes(config.model)
    params = jax.device_put(random_params(config.model), tree_shardings(boxed, mesh))
    made, finite = make_sampler(config, mesh, all_images=True)(params, LABELS, 5, INDICES)
    assert finite.sharding.is_equivalent_to(batch_sharding(mesh), 1)
    assert made.sharding.is_equivalent_to(batch_sharding(mesh), made.ndim)
    noise = SeededNoise(jnp.int32(5), jnp.asarray(INDICES))
    latents = latents_of(config.model, config.sampling, random_params(config.model), LABELS, noise)
    assert_close(made, unpatchify(latents, 2))
    difference = np.asarray(to_uint8(made)).astype(int) - alone
    assert np.abs(difference).max() <= 1


# --- what moves between devices ---


@pytest.mark.parametrize("config", [ONE_STEP, slow(MRAR)], ids=["one_step", "mrar"])
def test_rows_of_a_sharded_batch_stay_where_they_are(config):
    labels = np.arange(32, dtype=np.int32) % 10
    sampler = make_sampler(config, make_mesh(MeshConfig()))
    weights = sampler.tokenizer, random_params(config.model)
    program = sampler.jitted.lower(weights, labels, np.int32(5), labels).compile()
    assert moved(program) == [("all-reduce", ())]  # the largest number of classes on a device


@functools.cache
def program_on(mesh):
    """The compiled sampler of guided MRAR sequences on a mesh of eight devices."""
    # No parameter has the sizes of activations: 24 rows, 48 of pairs, and 16, 4 and 11 tokens.
    sizes = {"width": 64, "heads": 4, "encoder_blocks": 2, "decoder_blocks": 5, "class_tokens": 7}
    config = tiny_config(mrar=True, model=sizes, sampling={"steps": 5, "guidance": (1.5,)})
    mesh = make_mesh(MeshConfig(*mesh))
    sampler, rows = make_sampler(config, mesh), jax.ShapeDtypeStruct((24,), jnp.int32)
    weights = sampler.tokenizer, abstract_state(config, mesh).params
    return sampler.jitted.lower(weights, rows, jax.ShapeDtypeStruct((), jnp.int32), rows).compile()


def test_fsdp_moves_weights_and_not_activations():
    arrays = moved(program_on((1, 8, 1)))
    assert ("all-gather", (64, 256)) in arrays, "an MLP's weights"
    assert {kind for kind, _ in arrays} == {"all-gather", "all-reduce"}
    # Neither whole batches nor a device's rows, alone or in pairs, nor their tokens.
    rows = {3, 6, 24, 48}
    sizes = rows | {count * tokens for count in rows for tokens in (16, 4, 11)}
    bias = (6, 64)  # of the modulation
    assert [dims for _, dims in arrays if dims != bias and ({24, 48} & set(dims) or sizes & set(dims[:1]))] == []
    # The sums are those of the time table and of the largest number of classes on a device.
    assert sorted(dims for kind, dims in arrays if kind == "all-reduce") == [(), (5, 64)]


def test_fsdp_gathers_weights_in_each_step_and_not_before():
    gathers = [entry for entry in collectives(parse(program_on((1, 8, 1)).as_text())) if entry.kind == "all-gather"]
    mlps = [entry.times for entry in gathers if entry.bytes == 4 * 64 * 256]
    assert mlps.count(5) == 4 * 5 * 2, "of four images, five blocks, two layers: in five steps"
    assert mlps.count(2) == 4 * 2, "of four images, two layers: in the encoder's loop over its two blocks"
    assert len(mlps) == 4 * 5 * 2 + 4 * 2


def test_tensor_parallel_sums_after_a_block_and_gathers_nothing():
    arrays = moved(program_on((2, 1, 4)))
    assert {kind for kind, _ in arrays} == {"all-reduce"}
    assert ("all-reduce", (24 * 16, 64)) in arrays, "pairs of 12 rows"
