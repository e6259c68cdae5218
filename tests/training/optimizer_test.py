import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.support.configs import tiny_config
from transdiff_jax.model.params import init_params
from transdiff_jax.training.optimizer import DECAY_RULES, make_optimizer, make_schedule
from transdiff_jax.training.parameter_rules import apply_rules, path_name


def named_leaves(tree):
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def params_of(config):
    return nn.unbox(init_params(config.model, 0))


def test_decay_covers_the_encoder_matrices_and_tables_only(config):
    decays = named_leaves(apply_rules(DECAY_RULES, params_of(config)))
    tables = {"class_embedding", "null_class", "mask_embedding", "position_embedding", "output_position_embedding"}
    matrices = {"blocks/attention/qkv", "blocks/attention/output", "blocks/mlp/up", "blocks/mlp/down"}
    if config.model.num_images > 1:
        matrices.add("reference_projection")
    expected = {f"encoder/{name}" for name in tables} | {f"encoder/{name}/kernel" for name in matrices}
    assert {name for name, decay in decays.items() if decay} == expected


def test_a_parameter_without_a_rule_raises():
    with pytest.raises(ValueError, match="no rule covers parameter encoder/novelty"):
        apply_rules(DECAY_RULES, {"encoder": {"novelty": jnp.zeros(3)}})


def test_two_updates_are_adamw_by_hand():
    config = tiny_config(optimizer={"learning_rate": 0.01, "scale_with_batch": False, "clip_norm": 0.5})
    params = params_of(config)
    gradients = jax.tree.map(lambda p: 0.1 * jnp.sin(jnp.arange(p.size, dtype=jnp.float32)).reshape(p.shape), params)
    optimizer = make_optimizer(config, params)
    state, ours = optimizer.init(params), params
    for _ in range(2):
        updates, state = optimizer.update(gradients, state, ours)
        ours = optax.apply_updates(ours, updates)

    c = config.optimizer
    norm = np.sqrt(sum(float(np.sum(np.square(g))) for g in jax.tree.leaves(gradients)))
    assert norm > c.clip_norm
    decays = named_leaves(apply_rules(DECAY_RULES, params))
    for name, p in named_leaves(params).items():
        p = np.asarray(p, np.float64)
        g = np.asarray(named_leaves(gradients)[name], np.float64) * c.clip_norm / norm
        m = v = 0.0
        for count in (1, 2):
            m, v = c.beta1 * m + (1 - c.beta1) * g, c.beta2 * v + (1 - c.beta2) * g**2
            step = m / (1 - c.beta1**count) / (np.sqrt(v / (1 - c.beta2**count)) + c.epsilon)
            p = p - c.learning_rate * (step + c.weight_decay * decays[name] * p)
        np.testing.assert_allclose(named_leaves(ours)[name], p, rtol=2e-5, atol=1e-7, err_msg=name)


def test_only_decoder_freezes_the_encoder_decay_included():
    config = tiny_config(train={"only": "decoder"}, optimizer={"weight_decay": 0.5})
    params = params_of(config)
    optimizer = make_optimizer(config, params)
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(ones, optimizer.init(params), params)
    for name, update in named_leaves(updates).items():
        assert np.any(np.asarray(update) != 0) == name.startswith("decoder/"), name


def test_a_frozen_encoder_has_no_moments():
    config = tiny_config(train={"only": "decoder"})
    params = params_of(config)
    moments = named_leaves(make_optimizer(config, params).init(params))
    assert not [name for name in moments if "encoder/" in name.replace("decoder/", "")]
    assert [name for name in moments if "decoder/" in name]


def test_schedule_warms_up_linearly_from_zero_and_scales_with_the_batch():
    config = tiny_config(train={"batch_size": 512, "steps": 100}, optimizer={"learning_rate": 1e-3, "warmup_steps": 10})
    schedule = make_schedule(config)
    np.testing.assert_allclose([schedule(n) for n in (0, 5, 10, 99)], [0, 1e-3, 2e-3, 2e-3], rtol=1e-6)


def test_cosine_ends_at_zero():
    optimizer = {"learning_rate": 1.0, "warmup_steps": 20, "schedule": "cosine", "scale_with_batch": False}
    schedule = make_schedule(tiny_config(train={"steps": 120}, optimizer=optimizer))
    np.testing.assert_allclose([schedule(n) for n in (10, 20, 70, 120)], [0.5, 1.0, 0.5, 0.0], atol=1e-6)


def test_moments_and_averages_are_float32():
    config = tiny_config()
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, dtype="bfloat16"))
    params = params_of(config)
    for leaf in jax.tree.leaves(make_optimizer(config, params).init(params)):
        assert leaf.dtype in (jnp.float32, jnp.int32)
