import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from transdiff_jax.config import ModelConfig
from transdiff_jax.convert.table import check_reference, from_reference, to_reference
from transdiff_jax.convert.transdiff_names import infer_model, name_table
from transdiff_jax.errors import UserError
from transdiff_jax.model.params import init_shapes
from transdiff_jax.model.variants import KINDS, SIZES, published_model

TINY = ModelConfig(
    width=8,
    heads=2,
    encoder_blocks=2,
    decoder_blocks=3,
    num_classes=5,
    class_tokens=3,
    tokens_per_image=16,
    latent_size=4,
    latent_channels=2,
)
CONFIGS = {
    "one_step": TINY,
    "mrar": dataclasses.replace(TINY, num_images=4, tokens_per_image=4, mask_tokens=4, reference_patch=2),
    "large_latent": dataclasses.replace(TINY, latent_size=8),
}


def abstract_params(config):
    return nn.unbox(init_shapes(config))


def test_a_student_has_no_names_in_the_release():
    with pytest.raises(UserError, match="has no form in the release"):
        name_table(dataclasses.replace(TINY, flow_map=True))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_table_names_exactly_the_parameters_of_the_model(config):
    shapes = {path: leaf.shape for path, leaf in flatten_dict(abstract_params(config), sep="/").items()}
    assert name_table(config).our_shapes() == shapes


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_tree_survives_the_way_there_and_back(config):
    draw = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: draw.standard_normal(leaf.shape).astype(np.float32), abstract_params(config))
    table = name_table(config)
    back = from_reference(table, to_reference(table, params, {}, "tree"), "file")
    jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_sizes_follow_from_shapes(config):
    assert infer_model(name_table(config).reference_shapes(), "file", heads=2) == config


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_published_models_follow_from_shapes(size, kind):
    config = published_model(size, kind)
    assert infer_model(name_table(config).reference_shapes(), "file") == config


def test_only_1_step_has_unused_tensors():
    assert [unused.reference for unused in name_table(TINY).unused] == ["z_proj.weight", "z_proj.bias"]
    assert not name_table(CONFIGS["mrar"]).unused


def test_unknown_width_needs_heads():
    shapes = name_table(TINY).reference_shapes()
    with pytest.raises(UserError, match=r"file has width 8.* --heads"):
        infer_model(shapes, "file")
    with pytest.raises(UserError, match=r"--heads=3 must divide the width 8"):
        infer_model(shapes, "file", heads=3)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("diffdecoder.net.diffusion_pos_embed_learned", (1, 15, 8), "15 latent positions are not a square"),
        ("mask_token", (1, 3, 8), "3 mask tokens do not divide 16"),
        ("class_emb.weight", (5, 8, 1), r"class_emb.weight of shape \(5, 8, 1\) must have 2 axes"),
    ],
)
def test_contradictory_sizes_are_refused(name, shape, message):
    with pytest.raises(UserError, match=message):
        infer_model(name_table(TINY).reference_shapes() | {name: shape}, "file", heads=2)


def test_other_networks_are_refused():
    with pytest.raises(UserError, match=r"not a TransDiff checkpoint: it has no tensor class_emb.weight"):
        infer_model({"encoder.conv_in.weight": (32, 3, 3, 3)}, "file")


def test_shape_of_an_inferred_model_is_checked_tensor_by_tensor():
    shapes = name_table(TINY).reference_shapes() | {"encoder_blocks.1.mlp.fc1.bias": (31,)}
    config = infer_model(shapes, "file", heads=2)
    with pytest.raises(UserError, match=r"encoder_blocks.1.mlp.fc1.bias of shape \(31,\) instead of \(32,\)"):
        check_reference(name_table(config), shapes, "file")
