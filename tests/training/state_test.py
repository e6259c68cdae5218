import flax.linen as nn
import jax
import numpy as np
import pytest

from tests.support.configs import tiny_config
from tests.support.paths import CONFIGS
from transdiff_jax.config import MeshConfig, load_config_dict, make_config
from transdiff_jax.model.params import init_params
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.training.parameter_rules import path_name
from transdiff_jax.training.state import abstract_state, create_state


def shardings_by_name(tree):
    return {path_name(path): leaf.sharding.spec for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def test_the_abstract_state_is_the_created_one(config):
    mesh = make_mesh(MeshConfig())
    abstract, state = abstract_state(config, mesh), create_state(config, mesh)
    assert jax.tree.structure(abstract) == jax.tree.structure(state)
    for expected, leaf in zip(jax.tree.leaves(abstract), jax.tree.leaves(state), strict=True):
        assert (expected.shape, expected.dtype, expected.sharding) == (leaf.shape, leaf.dtype, leaf.sharding)


def test_moments_and_averages_are_sharded_like_their_parameters():
    config = tiny_config(train={"ema_rates": (0.9, 0.99)})
    state = abstract_state(config, make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    params = shardings_by_name(state.params)
    assert any("fsdp" in spec for spec in params.values()) and any("tensor" in spec for spec in params.values())
    for average in state.ema:
        assert shardings_by_name(average) == params
    checked = 0
    for name, spec in shardings_by_name(state.opt_state).items():
        for moment in ("/mu/", "/nu/"):
            if moment in name:
                assert spec == params[name.split(moment)[1]], name
                checked += 1
    assert checked == 2 * len(params)


def test_the_same_parameters_on_any_mesh(config):
    meshes = [MeshConfig(), MeshConfig(data=1, fsdp=4, tensor=2)]
    one, other = (create_state(config, make_mesh(mesh)).params for mesh in meshes)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_averages_start_as_copies_of_given_parameters(config):
    params = jax.tree.map(lambda p: p + 1, nn.unbox(init_params(config.model, 0)))
    params = jax.device_get(params)
    state = create_state(config, make_mesh(MeshConfig()), params)
    jax.tree.map(np.testing.assert_array_equal, state.params, params)
    jax.tree.map(np.testing.assert_array_equal, state.ema[0], params)
    assert int(state.step) == 0


# On (data=2, fsdp=2, tensor=2). An entry of a block is for the blocks of both networks.
TABLE = {
    "attention/qkv/kernel": (None, "fsdp", None, "tensor", None),
    "attention/qkv/bias": (None, None, "tensor", None),
    "attention/output/kernel": (None, "tensor", None, "fsdp"),
    "attention/output/bias": (None, "fsdp"),
    "cross_attention/query/kernel": (None, "fsdp", "tensor", None),
    "cross_attention/query/bias": (None, "tensor", None),
    "cross_attention/output/kernel": (None, "tensor", None, "fsdp"),
    "cross_attention/output/bias": (None, "fsdp"),
    "mlp/up/kernel": (None, "fsdp", "tensor"),
    "mlp/up/bias": (None, "tensor"),
    "mlp/down/kernel": (None, "tensor", "fsdp"),
    "mlp/down/bias": (None, "fsdp"),
    "attention_norm/scale": (None, None),
    "attention_norm/bias": (None, None),
    "cross_norm/scale": (None, None),
    "cross_norm/bias": (None, None),
    "mlp_norm/scale": (None, None),
    "mlp_norm/bias": (None, None),
    "modulation": (None, None, "fsdp"),
    "decoder/condition_projection/kernel": ("fsdp", None),
    "decoder/condition_projection/bias": (None,),
    "decoder/input_projection/kernel": (None, "fsdp"),
    "decoder/input_projection/bias": ("fsdp",),
    "decoder/keys_values/key/kernel": (None, "fsdp", "tensor", None),
    "decoder/keys_values/key/bias": (None, "tensor", None),
    "decoder/keys_values/value/kernel": (None, "fsdp", "tensor", None),
    "decoder/keys_values/value/bias": (None, "tensor", None),
    "decoder/output_modulation": (None, "fsdp"),
    "decoder/output_projection/kernel": ("fsdp", None),
    "decoder/output_projection/bias": (None,),
    "decoder/position_embedding": (None, "fsdp"),
    "decoder/time_embedding/up/kernel": (None, "fsdp"),
    "decoder/time_embedding/up/bias": ("fsdp",),
    "decoder/time_embedding/down/kernel": ("fsdp", None),
    "decoder/time_embedding/down/bias": (None,),
    "decoder/time_embedding/modulation/kernel": (None, None, "fsdp"),
    "decoder/time_embedding/modulation/bias": (None, "fsdp"),
    "encoder/class_embedding": (None, "fsdp"),
    "encoder/null_class": ("fsdp",),
    "encoder/mask_embedding": (None, "fsdp"),
    "encoder/position_embedding": (None, "fsdp"),
    "encoder/output_position_embedding": (None, "fsdp"),
    "encoder/reference_projection/kernel": (None, "fsdp"),
    "encoder/reference_projection/bias": ("fsdp",),
    "encoder/input_norm/scale": (None,),
    "encoder/input_norm/bias": (None,),
    "encoder/output_norm/scale": (None,),
    "encoder/output_norm/bias": (None,),
}


@pytest.mark.parametrize("size", ["l", "h"])
def test_sharding_of_every_parameter_of_a_published_model(size):
    values = load_config_dict(CONFIGS / f"transdiff_{size}_mrar.py").to_dict()
    state = abstract_state(make_config(values), make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    specs, seen = shardings_by_name(state.params), set()
    for name, spec in specs.items():
        row = name.split("/blocks/")[-1]
        assert tuple(spec) == TABLE[row], name
        seen.add(row)
    assert seen == TABLE.keys()
    assert shardings_by_name(state.ema[0]) == specs
