import re

import jax
import jax.numpy as jnp
import numpy as np

from tests.support.parameters import perturb
from transdiff_jax.nn.attention import SelfAttention
from transdiff_jax.nn.qkv import QkvProjection, split_qkv


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_parts_of_the_fused_projection_give_the_same():
    x, module = normal(0, 2, 5, 6), QkvProjection(3, jnp.float32)
    fused = perturb(module.init(jax.random.key(1), x)["params"])
    query, key, value = module.apply({"params": fused}, x)
    for index, made in enumerate((query, key, value)):
        expected = jnp.einsum("btw,whd->bthd", x, fused["kernel"][:, index]) + fused["bias"][index]
        np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)
    split = module.apply({"params": split_qkv(fused)}, x)
    jax.tree.map(np.testing.assert_array_equal, split, (query, key, value))


def test_no_copy_takes_queries_keys_and_values_apart():
    x, module = normal(0, 2, 5, 6), SelfAttention(3, 0.0, 0.0, jnp.bfloat16)
    program = jax.jit(module.apply).lower(jax.eval_shape(module.init, jax.random.key(1), x), x).as_text()
    results = re.findall(r"stablehlo\.dot_general.*-> (tensor<[^>]*>)", program)
    assert results[:3] == ["tensor<10x6xbf16>"] * 3
