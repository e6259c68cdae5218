import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transdiff_jax.evaluation.inception.network import WIDTHS, InceptionV3, inception_features, param_shapes
from transdiff_jax.evaluation.inception.preprocess import preprocess


@pytest.fixture(scope="module")
def params():
    """Weights that preserve the scale of activations."""
    draw = np.random.default_rng(0)

    def fill(path, leaf):
        fan_in = np.prod(leaf.shape[:-1])
        if path[-1].key == "kernel":
            return (draw.standard_normal(leaf.shape) * np.sqrt(2 / fan_in)).astype(np.float32)
        offset = 1.0 if path[-1].key in ("scale", "variance") else 0.0
        return (offset + draw.uniform(-0.3, 0.3, leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, param_shapes())


def test_sizes():
    images = jax.ShapeDtypeStruct((5, 20, 30, 3), jnp.uint8)
    shapes = jax.eval_shape(lambda p, x: inception_features(p, x, tuple(WIDTHS)), param_shapes(), images)
    assert {name: shape.shape for name, shape in shapes.items()} == {name: (5, width) for name, width in WIDTHS.items()}
    assert {shape.dtype for shape in shapes.values()} == {jnp.dtype("float32")}
    assert WIDTHS["spatial"] == 2023
    assert sum(leaf.size for leaf in jax.tree.leaves(param_shapes())) == 23_885_392


def test_every_product_is_pinned_to_the_highest_precision():
    images = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)
    program = jax.make_jaxpr(InceptionV3().apply)({"params": param_shapes()}, images)
    products = [eqn for eqn in program.eqns if eqn.primitive.name in ("conv_general_dilated", "dot_general")]
    highest = jax.lax.Precision.HIGHEST
    assert len(products) == 94 + 1
    assert {eqn.params["precision"] for eqn in products} == {(highest, highest)}


def test_spatial_features_are_seven_channels_of_the_one_by_one_branch_of_mixed_6d(params):
    images = preprocess(np.random.default_rng(1).integers(0, 256, (1, 40, 40, 3)).astype(np.uint8))

    @jax.jit
    def run(params, images):
        return InceptionV3().apply({"params": params}, images, capture_intermediates=True)

    features, state = run(params, images)
    layers = state["intermediates"]
    branch = layers["mixed_6d"]["branch1x1"]["__call__"][0]
    assert branch.shape == (1, 17, 17, 192)
    assert branch.min() == 0 < branch.max()
    np.testing.assert_array_equal(features["spatial"].reshape(1, 17, 17, 7), branch[..., :7])

    # The other features, from the layers that they are named after.
    block = layers["mixed_6e"]["__call__"][0][0]
    np.testing.assert_allclose(features["768"], block.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(features["2048"], layers["mixed_7c"]["__call__"][0].mean((1, 2)), rtol=1e-5)
    difference = features["logits"] - features["logits_unbiased"]
    np.testing.assert_allclose(difference[0], params["fc"]["bias"], atol=1e-5)
