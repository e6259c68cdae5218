import jax
import numpy as np

from tests.support.configs import tiny_config
from tests.support.parameters import random_params
from transdiff_jax.config import MeshConfig
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.sampling.semantic_similarity import class_similarities, fused_similarities
from transdiff_jax.training.state import abstract_state

CONFIG = tiny_config(mrar=True, sampling={"batch_size": 4})
CLASSES = np.array([3, 0, 9, 7, 1, 2])


def similarities(sizes):
    """Similarities of classes, and of the same classes fused with others, on the first devices."""
    mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: int(np.prod(sizes))])
    where = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(CONFIG, mesh).params)
    params = jax.device_put(random_params(CONFIG.model), where)
    pairs = np.stack([CLASSES, CLASSES[::-1]], axis=1)
    return (
        class_similarities(CONFIG.model, params, mesh, CLASSES, 4),
        fused_similarities(CONFIG.model, params, mesh, pairs, 5, np.arange(6), 0.5, 4),
    )


def test_similarities_on_a_mesh_are_those_of_one_device():
    single, sharded = similarities((1, 1, 1)), similarities((2, 2, 2))
    assert [len(values) for values in single] == [6, 6]
    assert len(np.unique(single)) > 6, "fused ones are others"
    np.testing.assert_allclose(sharded, single, rtol=1e-5)
