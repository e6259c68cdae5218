import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from transdiff_jax.config import MeshConfig
from transdiff_jax.nn.attention import KeysValues, attend
from transdiff_jax.nn.flash import flash_attend
from transdiff_jax.parallel import axes
from transdiff_jax.parallel.arrays import batch_sharding
from transdiff_jax.parallel.mesh import make_mesh


def arrays(queries, keys, batch=2, heads=2, head_dim=64, dtype=jnp.float32):
    lengths = (queries, keys, keys)
    return [
        jax.random.normal(jax.random.key(seed), (batch, length, heads, head_dim), dtype)
        for seed, length in enumerate(lengths)
    ]


@pytest.mark.parametrize(("queries", "keys"), [(256, 128), (320, 320), (5, 7)])
def test_flash_is_xla(queries, keys):
    query, key, value = arrays(queries, keys)

    def loss(attention):
        def total(query, key, value):
            made = attention(query, key, value)
            return jnp.sum(jnp.sin(made)), made

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))(query, key, value)

    (_, expected), slopes = loss(lambda query, key, value: attend(query, KeysValues(key, value)))
    with pltpu.force_tpu_interpret_mode():
        (_, made), found = loss(flash_attend)
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(found, slopes, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_sharded_flash_is_that_of_one_device():
    query, key, value = arrays(128, 128, batch=4, heads=4)
    expected = attend(query, KeysValues(key, value))

    mesh = make_mesh(MeshConfig(2, 1, 4))

    def sharded(query, key, value):
        with axes.over(mesh):
            return attend(query, KeysValues(key, value), implementation="flash")

    with pltpu.force_tpu_interpret_mode():
        made = jax.jit(sharded)(*jax.device_put((query, key, value), batch_sharding(mesh)))
    assert len(made.devices()) == 8
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


def test_flash_takes_no_mask():
    query, key, value = arrays(4, 4)
    with pytest.raises(ValueError, match='"flash" takes no mask'):
        attend(query, KeysValues(key, value), np.ones((4, 4), bool), implementation="flash")
