import jax
import jax.numpy as jnp
import numpy as np

from tests.support.configs import tiny_config
from tests.support.parameters import random_params
from transdiff_jax.model.step_weights import step_weights

MODEL = tiny_config().model


def test_blocks_stand_alone_and_products_have_the_compute_dtype():
    params = random_params(MODEL)["decoder"]
    made = step_weights(params, jnp.bfloat16)
    assert set(made["blocks"]) == {"0", "1"}
    block, stacked = made["blocks"]["1"], params["blocks"]
    np.testing.assert_array_equal(block["mlp"]["up"]["kernel"], stacked["mlp"]["up"]["kernel"][1].astype(jnp.bfloat16))
    key = stacked["attention"]["qkv"]["kernel"][1, :, 1].astype(jnp.bfloat16)
    np.testing.assert_array_equal(block["attention"]["qkv"]["key"]["kernel"], key)
    np.testing.assert_array_equal(block["modulation"], stacked["modulation"][1])
    dtypes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.dtype
        for path, leaf in jax.tree_util.tree_leaves_with_path(made)
    }
    kept = {name for name, dtype in dtypes.items() if dtype == jnp.float32}
    assert all(
        "norm" in name or "modulation" in name or "output_projection" in name or "position" in name for name in kept
    )
    assert sum(dtype == jnp.bfloat16 for dtype in dtypes.values()) == 2 + 2 * 2 * 8


def test_the_body_of_a_solver_reads_no_stack():
    """Nothing of [blocks, ...] is left for a step to slice."""
    made = step_weights(random_params(MODEL)["decoder"], jnp.float32)
    stacked = jax.tree.leaves(random_params(MODEL)["decoder"]["blocks"])
    alone = jax.tree.leaves(made["blocks"])
    assert sum(leaf.size for leaf in alone) == sum(leaf.size for leaf in stacked)
    assert {leaf.shape for leaf in alone} <= {leaf.shape[1:] for leaf in stacked} | {(16, 2, 8), (2, 8)}
