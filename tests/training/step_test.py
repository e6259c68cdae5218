import dataclasses
import functools
import math
import re
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import tiny_config
from tests.latents import Photographs, photo_config, save_tiny_weights
from tests.parameters import random_params
from transdiff_jax import sharding
from transdiff_jax.benchmark.measuring import batch_shapes
from transdiff_jax.config import MeshConfig
from transdiff_jax.tokenizer import make_tokenizer
from transdiff_jax.training.state import abstract_state, create_state
from transdiff_jax.training.step import jit_train_step, make_train_step


def make_batch(config, seed=0):
    generator = np.random.default_rng(seed)
    c, d = config.train.batch_size, config.data
    shape = (c, config.model.num_images, d.image_size, d.image_size, d.image_channels)
    return {
        "image": generator.uniform(-1, 1, shape).astype(np.float32),
        "label": generator.integers(0, 10, c).astype(np.int32),
    }


@functools.cache
def start(config, mesh):
    # Not the initial parameters: their last layer is zero, which hides the rest of the network from the loss.
    state = create_state(config, mesh, jax.device_get(random_params(config.model)))
    return jax.device_get(state), make_train_step(config, mesh)


def run(config, batches, mesh=(1, 1, 1)):
    """State and metrics after the batches, on the first devices."""
    mesh = sharding.make_mesh(MeshConfig(*mesh), jax.devices()[: math.prod(mesh)])
    (state, step), history = start(config, mesh), []
    for batch in batches:
        state, metrics = step(state, sharding.to_global(batch, mesh))
        history.append(jax.device_get(metrics))
    return jax.device_get(state), history


def assert_trees_close(ours, theirs, **tolerances):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerances), ours, theirs)


@functools.cache
def photo_run(mrar, **train):
    """A configuration with KL-16, and the same batch as images and as moments in float32."""
    folder = save_tiny_weights(Path(tempfile.mkdtemp()) / "kl16")
    config = photo_config(folder, mrar, train={"batch_size": 8, **train})
    source, images = Photographs(8 * config.model.num_images), config.model.num_images
    pixels = np.stack([source[index]["image"] for index in range(len(source))]) / np.float32(127.5) - 1
    batch = {"image": pixels.reshape(8, images, *pixels.shape[1:]), "label": np.arange(8, dtype=np.int32) % 2}
    moments = np.asarray(make_tokenizer(config).moments(batch["image"]))
    return config, batch, {"moments": moments, "label": batch["label"]}


@pytest.mark.parametrize(("mrar", "mesh"), [(False, (1, 1, 1)), (True, (2, 2, 1))], ids=["one_step", "mrar"])
def test_a_step_on_moments_is_the_step_on_images(mrar, mesh):
    config, images, moments = photo_run(mrar)
    on_images, expected = run(config, [images] * 2, mesh)
    on_moments, metrics = run(config, [moments] * 2, mesh)
    for ours, theirs in zip(metrics, expected, strict=True):
        np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-6)
        np.testing.assert_allclose(ours["gradient_norm"], theirs["gradient_norm"], rtol=1e-5)
    assert_trees_close(on_moments.opt_state, on_images.opt_state, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float16, 1e-4), (jnp.bfloat16, 2e-3)], ids=str)
def test_what_short_moments_cost(dtype, tolerance):
    config, _, moments = photo_run(False)
    _, [expected] = run(config, [moments])
    _, [metrics] = run(config, [moments | {"moments": moments["moments"].astype(dtype)}])
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=tolerance)
    assert metrics["loss"] != expected["loss"]


def test_accumulated_moments_equal_the_full_batch():
    config, _, moments = photo_run(False)
    accumulated = dataclasses.replace(config, train=dataclasses.replace(config.train, accumulation=4))
    _, [full] = run(config, [moments])
    _, [split] = run(accumulated, [moments], mesh=(2, 1, 1))
    np.testing.assert_allclose(split["loss"], full["loss"], rtol=1e-5)


def test_each_step_draws_another_posterior_sample():
    """With a decoder that gives zero, the loss tells only of the latents and the noise, which are drawn alike."""
    config, _, moments = photo_run(False)
    certain = moments["moments"].copy()
    certain[..., 4:] = -30  # the posterior is its mean
    _, drawn = run(config, [moments] * 2)
    _, fixed = run(config, [moments | {"moments": certain}] * 2)
    gaps = [abs(a["loss"] - b["loss"]) for a, b in zip(drawn, fixed, strict=True)]
    assert min(gaps) > 1e-4
    assert abs(gaps[0] - gaps[1]) > 1e-5


def test_accumulated_equals_full_batch(config):
    accumulated = dataclasses.replace(config, train=dataclasses.replace(config.train, accumulation=4))
    full, [full_metrics] = run(config, [make_batch(config)])
    split, [split_metrics] = run(accumulated, [make_batch(config)], mesh=(2, 1, 1))
    for name in ("loss", "gradient_norm", "semantic_similarity"):
        np.testing.assert_allclose(split_metrics[name], full_metrics[name], rtol=1e-5, err_msg=name)
    # Adam divides by the gradient's size: what is almost zero may move by either sign of the learning rate.
    assert_trees_close(split.opt_state, full.opt_state, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("mesh", [(8, 1, 1), (2, 2, 2), (1, 8, 1), (4, 1, 2)], ids=str)
def test_sharded_equals_single(config, mesh):
    single, single_history = run(config, [make_batch(config)])
    sharded, sharded_history = run(config, [make_batch(config)], mesh)
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(sharded_history[0][name], single_history[0][name], rtol=1e-5, err_msg=name)
    assert_trees_close(sharded.opt_state, single.opt_state, rtol=1e-3, atol=1e-6)


def crossing(mesh):
    """What moves between devices in a step: (kind, shape) of each array that a collective makes."""
    # 24 rows, 48 noisy latents, 23 and 16 tokens: numbers that no parameter has.
    sizes = {"width": 64, "heads": 4, "encoder_blocks": 3, "decoder_blocks": 5, "class_tokens": 7}
    config = tiny_config(model=sizes | {"dropout": 0.1, "remat": "full"}, train={"batch_size": 24})
    mesh = sharding.make_mesh(MeshConfig(*mesh))
    batch = batch_shapes(config, mesh)
    program = jit_train_step(config, mesh).lower(abstract_state(config, mesh), batch, make_tokenizer(config)).compile()
    found = re.findall(r"= (\(.*?\)|\S+) (all-[a-z]+|reduce-scatter|collective-permute)\(", program.as_text())
    arrays = [
        (kind, [tuple(map(int, dims.split(","))) for dims in re.findall(r"\[([\d,]+)\]", shape)])
        for shape, kind in found
    ]
    return [(kind, dims) for kind, shapes in arrays for dims in shapes]


def test_fsdp_moves_weights_and_not_activations():
    moved = crossing((1, 8, 1))
    assert ("all-gather", (64, 256)) in moved, "an MLP's weights"
    # Whole batches: labels alone (classes are looked up where their part of the table is).
    assert [entry for entry in moved if {24, 48} & set(entry[1]) and math.prod(entry[1]) > 24] == []
    # A device's rows: nothing that has tokens.
    assert [entry for entry in moved if entry[1][0] in (3, 6) and 23 in entry[1]] == []


def test_tensor_parallel_sums_after_a_block_and_gathers_nothing_of_a_batch():
    moved = crossing((2, 1, 4))
    assert ("all-reduce", (12, 23, 64)) in moved
    assert not [dims for kind, dims in moved if kind != "all-reduce" and len(dims) > 2 and dims[0] in (12, 24, 48)]


def test_a_step_depends_on_state_and_batch_alone(config):
    batches = [make_batch(config, seed) for seed in range(2)]
    first, _ = run(config, batches)
    second, _ = run(config, batches)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_noise_differs_from_step_to_step():
    config = tiny_config(optimizer={"learning_rate": 1e-12})
    _, history = run(config, [make_batch(config)] * 2)
    assert abs(history[0]["loss"] - history[1]["loss"]) > 1e-3


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_non_finite_batch_changes_nothing_but_the_counters(poison):
    config = tiny_config(train={"ema_rates": (0.9, 0.5)}, optimizer={"learning_rate": 1e-2, "warmup_steps": 2})
    good, bad = make_batch(config), make_batch(config)
    bad["image"][3, 0, 2, 2, 0] = poison
    before, _ = run(config, [good])
    after, history = run(config, [good, bad])
    for name in ("params", "opt_state", "ema"):
        jax.tree.map(np.testing.assert_array_equal, getattr(before, name), getattr(after, name))
    assert (int(after.step), int(after.skipped), int(after.skipped_in_a_row)) == (2, 1, 1)
    assert [bool(entry["finite"]) for entry in history] == [True, False]
    recovered, _ = run(config, [good, bad, good])
    assert (int(recovered.skipped), int(recovered.skipped_in_a_row)) == (1, 0)


def test_every_average_follows_the_updated_parameters():
    config = tiny_config(train={"ema_rates": (0.9, 0.5)}, optimizer={"learning_rate": 1e-2})
    start, _ = run(config, [])
    end, _ = run(config, [make_batch(config)])
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
    plain = tiny_config()
    weighted = tiny_config(loss={"diversity_weight": 0.5})
    _, [without] = run(plain, [make_batch(plain)])
    _, [with_term] = run(weighted, [make_batch(weighted)])
    np.testing.assert_allclose(with_term["loss"], without["loss"] + 0.5 * without["semantic_similarity"], rtol=1e-5)


def test_bucket_losses_add_up_to_the_loss(config):
    _, [metrics] = run(config, [make_batch(config)])
    pairs = config.train.batch_size * config.model.num_images * config.loss.pairs_per_latent
    assert metrics["bucket_count"].sum() == pairs
    np.testing.assert_allclose(metrics["bucket_loss"].sum() / pairs, metrics["flow_loss"], rtol=1e-5)


def test_dropout_is_on_in_training():
    config, without = tiny_config(model={"dropout": 0.5}), tiny_config()
    _, [dropped] = run(config, [make_batch(config)])
    _, [kept] = run(without, [make_batch(config)])
    assert abs(dropped["loss"] - kept["loss"]) > 1e-2


def test_bfloat16_compute_keeps_float32_state():
    config = tiny_config(model={"dtype": "bfloat16"})
    state, [metrics] = run(config, [make_batch(config)])
    _, [expected] = run(tiny_config(), [make_batch(config)])
    for leaf in jax.tree.leaves((state.params, state.ema)):
        assert leaf.dtype == jnp.float32
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=3e-2)
