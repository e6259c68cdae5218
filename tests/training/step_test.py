import dataclasses
import functools
import itertools
import math
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from tests.support.collectives import moved
from tests.support.configs import tiny_config
from tests.support.latents import Photographs, photo_config, save_tiny_weights
from tests.support.parameters import random_params
from tests.support.slow import slow
from transdiff_jax.benchmark.measuring import batch_shapes
from transdiff_jax.config import MeshConfig
from transdiff_jax.images.uint8 import to_unit_range
from transdiff_jax.parallel.arrays import to_global
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.tokenizer.make import make_tokenizer
from transdiff_jax.training.state import abstract_state, create_state
from transdiff_jax.training.step import jit_train_step, make_train_step

# Four heads, which tensor parallelism can split over four devices.
ONE_STEP, MRAR = (tiny_config(mrar, model={"heads": 4}) for mrar in (False, True))
# One configuration turns on everything that is off in those, because each new program takes seconds to compile.
EVENTFUL = tiny_config(
    model={"heads": 4},
    train={"ema_rates": (0.9, 0.5)},
    optimizer={"learning_rate": 1e-2, "warmup_steps": 2},
    loss={"diversity_weight": 0.5},
)


@pytest.fixture(params=[ONE_STEP, MRAR], ids=["one_step", "mrar"])
def config(request):
    return request.param


def make_batch(config, seed=0):
    generator = np.random.default_rng(seed)
    rows, m = config.train.batch_size, config.model
    shape = (rows, m.num_images, m.latent_size, m.latent_size, m.latent_channels)
    return {
        "moments": generator.uniform(-1, 1, shape).astype(np.float32),
        "label": generator.integers(0, 10, rows).astype(np.int32),
    }


@functools.cache
def start(config, mesh):
    """The state before the first step, on the host because a step donates it; its shardings; the step."""
    # Not the initial parameters: their last layer is zero, which hides the rest of the network from the loss.
    state = create_state(config, mesh, jax.device_get(random_params(config.model)))
    return jax.device_get(state), jax.tree.map(lambda leaf: leaf.sharding, state), make_train_step(config, mesh)


def run(config, batches, mesh=(1, 1, 1)):
    """State and metrics after the batches, on the first devices."""
    mesh = make_mesh(MeshConfig(*mesh), jax.devices()[: math.prod(mesh)])
    (state, shardings, step), history = start(config, mesh), []
    # Placed first, because a step that is called with host arrays compiles again for its own result.
    state = jax.device_put(state, shardings)
    for batch in batches:
        state, metrics = step(state, to_global(batch, mesh))
        history.append(jax.device_get(metrics))
    return jax.device_get(state), history


def assert_trees_close(ours, theirs, **tolerances):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerances), ours, theirs)


@functools.cache
def photo_run(mrar, **train):
    """A configuration with KL-16, and one batch as images and as float32 moments."""
    folder = save_tiny_weights(Path(tempfile.mkdtemp()) / "kl16")
    config = photo_config(folder, mrar, train={"batch_size": 8, **train})
    source, images = Photographs(8 * config.model.num_images), config.model.num_images
    pixels = np.stack([source[index]["image"] for index in range(len(source))])
    batch = {"image": pixels.reshape(8, images, *pixels.shape[1:]), "label": np.arange(8, dtype=np.int32) % 2}
    moments = np.asarray(make_tokenizer(config).moments(jnp.asarray(to_unit_range(batch["image"]))))
    return config, batch, {"moments": moments, "label": batch["label"]}


@pytest.mark.parametrize(("mrar", "mesh"), [(False, (2, 2, 1)), slow(True, (2, 2, 1))], ids=["one_step", "mrar"])
def test_a_step_on_moments_is_the_step_on_images(mrar, mesh):
    config, images, moments = photo_run(mrar)
    on_images, expected = run(config, [images] * 2, mesh)
    on_moments, metrics = run(config, [moments] * 2, mesh)
    for ours, theirs in zip(metrics, expected, strict=True):
        np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-6)
        np.testing.assert_allclose(ours["gradient_norm"], theirs["gradient_norm"], rtol=1e-5)
    assert_trees_close(on_moments.opt_state, on_images.opt_state, rtol=1e-3, atol=1e-6)


def test_a_step_on_pixels_is_the_step_on_images_that_the_host_normalised():
    rows = np.random.default_rng(0).integers(0, 256, (8, 1, 8, 8, 1)).astype(np.uint8)
    label = np.arange(8, dtype=np.int32)
    normalised = make_tokenizer(ONE_STEP).moments(jnp.asarray(rows.astype(np.float32) / np.float32(127.5) - 1))
    on_pixels, [metrics] = run(ONE_STEP, [{"image": rows, "label": label}])
    on_moments, [expected] = run(ONE_STEP, [{"moments": np.asarray(normalised), "label": label}])
    # The inputs have the same bits (images/uint8_test.py), but two programs may sum in another order.
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-6)
    assert_trees_close(on_pixels.params, on_moments.params, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float16, 1e-4), (jnp.bfloat16, 2e-3)], ids=str)
def test_what_short_moments_cost(dtype, tolerance):
    config, _, moments = photo_run(False)
    # Rounded and back in float32: tokenizer/kl16_test.py shows that short moments give the same draws.
    short = np.asarray(moments["moments"].astype(dtype), np.float32)
    _, [expected] = run(config, [moments])
    _, [metrics] = run(config, [moments | {"moments": short}])
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=tolerance)
    assert metrics["loss"] != expected["loss"]


@pytest.mark.slow
def test_accumulated_moments_equal_the_full_batch():
    config, _, moments = photo_run(False)
    accumulated = dataclasses.replace(config, train=dataclasses.replace(config.train, accumulation=4))
    _, [full] = run(config, [moments])
    _, [split] = run(accumulated, [moments], mesh=(2, 1, 1))
    np.testing.assert_allclose(split["loss"], full["loss"], rtol=1e-5)


def test_each_step_draws_another_posterior_sample():
    """The losses differ from those of moments without spread, and differently in each step."""
    config, _, moments = photo_run(False)
    certain = moments["moments"].copy()
    certain[..., 4:] = -30  # the posterior is its mean
    _, drawn = run(config, [moments] * 2)
    _, fixed = run(config, [moments | {"moments": certain}] * 2)
    gaps = [abs(a["loss"] - b["loss"]) for a, b in zip(drawn, fixed, strict=True)]
    assert min(gaps) > 1e-4
    assert abs(gaps[0] - gaps[1]) > 1e-5


@pytest.mark.parametrize("config", [ONE_STEP, slow(MRAR)], ids=["one_step", "mrar"])
def test_accumulated_equals_full_batch(config):
    accumulated = dataclasses.replace(config, train=dataclasses.replace(config.train, accumulation=4))
    full, [full_metrics] = run(config, [make_batch(config)])
    split, [split_metrics] = run(accumulated, [make_batch(config)], mesh=(2, 1, 1))
    for name in ("loss", "gradient_norm", "semantic_similarity"):
        np.testing.assert_allclose(split_metrics[name], full_metrics[name], rtol=1e-5, err_msg=name)
    # Compares the optimizer state: Adam divides by the gradient's size, and where that is almost zero, rounding decides
    # the sign of the update.
    assert_trees_close(split.opt_state, full.opt_state, rtol=1e-3, atol=1e-6)


def clipped_gradients(state):
    """By parameter, after one step and up to the factor 1 - beta1: Adam's first moment starts at zero."""
    return flatten_dict(optax.tree.get(state.opt_state, "mu"), sep="/")


@pytest.mark.parametrize("mesh", [slow((8, 1, 1)), slow((1, 8, 1)), slow((2, 1, 4)), (2, 2, 2)], ids=str)
def test_sharded_equals_single(config, mesh):
    single, single_history = run(config, [make_batch(config)])
    sharded, sharded_history = run(config, [make_batch(config)], mesh)
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(sharded_history[0][name], single_history[0][name], rtol=1e-5, err_msg=name)
    ours, theirs = clipped_gradients(sharded), clipped_gradients(single)
    # The bias of the keys adds the same to all logits of a query, so its gradient is only rounding.
    assert max(np.abs(made.pop("decoder/keys_values/key/bias")).max() for made in (ours, theirs)) < 1e-8
    for name, expected in theirs.items():
        assert np.abs(ours[name] - expected).max() < 1e-5 * np.abs(expected).max(), name
    assert_trees_close(sharded.opt_state, single.opt_state, rtol=1e-3, atol=1e-6)


def crossing(mesh):
    """The arrays that move between devices in a step."""
    # 24 rows, 48 noisy latents, 23 and 16 tokens: no parameter has these sizes.
    sizes = {"width": 64, "heads": 4, "encoder_blocks": 3, "decoder_blocks": 5, "class_tokens": 7}
    config = tiny_config(model=sizes | {"dropout": 0.1, "remat": "full"}, train={"batch_size": 24})
    mesh = make_mesh(MeshConfig(*mesh))
    arguments = abstract_state(config, mesh), batch_shapes(config, mesh), make_tokenizer(config)
    return moved(jit_train_step(config, mesh).lower(*arguments).compile())


def test_fsdp_moves_weights_and_not_activations():
    arrays = crossing((1, 8, 1))
    assert ("all-gather", (64, 256)) in arrays, "an MLP's weights"
    # Of whole batches, only labels move, because each device looks up classes in its part of the table.
    assert [entry for entry in arrays if {24, 48} & set(entry[1]) and math.prod(entry[1]) > 24] == []
    # Of a device's own rows, nothing with tokens moves.
    assert [entry for entry in arrays if entry[1][:1] in ((3,), (6,)) and 23 in entry[1]] == []


def test_tensor_parallel_sums_after_a_block_and_gathers_nothing_of_a_batch():
    arrays = crossing((2, 1, 4))
    assert ("all-reduce", (12 * 23, 64)) in arrays
    others = [dims for kind, dims in arrays if kind != "all-reduce"]
    assert not [dims for dims in others if len(dims) > 2 and dims[0] in (12, 24, 48)]
    assert not [dims for dims in others if dims[0] in (12 * 23, 24 * 23, 24 * 16, 48 * 16)]


def test_a_step_depends_on_state_and_batch_alone(config):
    batches = [make_batch(config, seed) for seed in range(2)]
    first, _ = run(config, batches)
    second, _ = run(config, batches)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_noise_differs_from_step_to_step():
    batch = make_batch(EVENTFUL)
    start, _ = run(EVENTFUL, [])
    after_one, _ = run(EVENTFUL, [batch])
    jax.tree.map(np.testing.assert_array_equal, start.params, after_one.params)  # a warm-up starts at rate 0
    _, history = run(EVENTFUL, [batch] * 2)
    assert abs(history[0]["loss"] - history[1]["loss"]) > 1e-3


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_non_finite_batch_changes_nothing_but_the_counters(poison):
    good, bad = make_batch(EVENTFUL), make_batch(EVENTFUL)
    bad["moments"][3, 0, 2, 2, 0] = poison
    before, _ = run(EVENTFUL, [good])
    after, history = run(EVENTFUL, [good, bad])
    for name in ("params", "opt_state", "ema"):
        jax.tree.map(np.testing.assert_array_equal, getattr(before, name), getattr(after, name))
    assert (int(after.step), int(after.skipped), int(after.skipped_in_a_row)) == (2, 1, 1)
    assert [bool(entry["finite"]) for entry in history] == [True, False]
    recovered, _ = run(EVENTFUL, [good, bad, good])
    assert (int(recovered.skipped), int(recovered.skipped_in_a_row)) == (1, 0)


def test_every_average_follows_the_updated_parameters():
    start, _ = run(EVENTFUL, [])
    # The first update of a warm-up has rate 0, so the second is the first that moves parameters.
    end, _ = run(EVENTFUL, [make_batch(EVENTFUL)] * 2)
    for rate, average in zip((0.9, 0.5), end.ema, strict=True):
        expected = jax.tree.map(lambda old, new, r=rate: r * old + (1 - r) * new, start.params, end.params)
        assert_trees_close(average, expected, rtol=1e-5, atol=1e-7)


def test_only_decoder_leaves_the_encoder_as_it_is():
    config = tiny_config(train={"only": "decoder"}, optimizer={"learning_rate": 1e-2})
    start, _ = run(config, [])
    end, _ = run(config, [make_batch(config)] * 2)
    jax.tree.map(np.testing.assert_array_equal, start.params["encoder"], end.params["encoder"])
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), start.params["decoder"], end.params["decoder"])
    assert moved["output_projection"]["kernel"]


def test_the_diversity_weight_enters_the_loss():
    _, [without] = run(ONE_STEP, [make_batch(ONE_STEP)])
    _, [with_term] = run(EVENTFUL, [make_batch(EVENTFUL)])
    np.testing.assert_allclose(with_term["loss"], without["loss"] + 0.5 * without["semantic_similarity"], rtol=1e-5)


def test_bucket_losses_add_up_to_the_loss(config):
    _, [metrics] = run(config, [make_batch(config)])
    pairs = config.train.batch_size * config.model.num_images * config.loss.pairs_per_latent
    assert metrics["bucket_count"].sum() == pairs
    np.testing.assert_allclose(metrics["bucket_loss"].sum() / pairs, metrics["flow_loss"], rtol=1e-5)


def test_dropout_is_on_in_training():
    dropping = tiny_config(model={"heads": 4, "dropout": 0.5})
    _, [dropped] = run(dropping, [make_batch(dropping)])
    _, [kept] = run(ONE_STEP, [make_batch(dropping)])
    by_hardware = tiny_config(model={"heads": 4, "dropout": 0.5}, train={"dropout_rng": "rbg"})
    _, [otherwise] = run(by_hardware, [make_batch(dropping)])
    for one, other in itertools.combinations((dropped, kept, otherwise), 2):
        assert abs(one["loss"] - other["loss"]) > 1e-2


def test_bfloat16_compute_keeps_float32_state():
    half = tiny_config(model={"heads": 4, "dtype": "bfloat16"})
    state, [metrics] = run(half, [make_batch(half)])
    _, [expected] = run(ONE_STEP, [make_batch(half)])
    for leaf in jax.tree.leaves((state.params, state.ema)):
        assert leaf.dtype == jnp.float32
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=3e-2)
