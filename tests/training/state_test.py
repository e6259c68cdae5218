import flax.linen as nn
import jax
import numpy as np

from tests.conftest import tiny_config
from transdiff_jax import sharding
from transdiff_jax.config import MeshConfig
from transdiff_jax.model.transdiff import init_params
from transdiff_jax.training.parameter_rules import path_name
from transdiff_jax.training.state import abstract_state, create_state


def shardings_by_name(tree):
    return {path_name(path): leaf.sharding.spec for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def test_the_abstract_state_is_the_created_one(config):
    mesh = sharding.make_mesh(MeshConfig())
    abstract, state = abstract_state(config, mesh), create_state(config, mesh)
    assert jax.tree.structure(abstract) == jax.tree.structure(state)
    for expected, leaf in zip(jax.tree.leaves(abstract), jax.tree.leaves(state), strict=True):
        assert (expected.shape, expected.dtype, expected.sharding) == (leaf.shape, leaf.dtype, leaf.sharding)


def test_moments_and_averages_are_sharded_like_their_parameters():
    config = tiny_config(train={"ema_rates": (0.9, 0.99)})
    state = abstract_state(config, sharding.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
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
    one, other = (create_state(config, sharding.make_mesh(mesh)).params for mesh in meshes)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_averages_start_as_copies_of_given_parameters(config):
    params = jax.tree.map(lambda p: p + 1, nn.unbox(init_params(config.model, 0)))
    params = jax.device_get(params)
    state = create_state(config, sharding.make_mesh(MeshConfig()), params)
    jax.tree.map(np.testing.assert_array_equal, state.params, params)
    jax.tree.map(np.testing.assert_array_equal, state.ema[0], params)
    assert int(state.step) == 0
