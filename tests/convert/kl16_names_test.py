import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict

from transdiff_jax.convert.kl16_names import infer_config, name_table
from transdiff_jax.errors import UserError
from transdiff_jax.tokenizer.kl16 import Kl16Autoencoder, Kl16Config

CONFIGS = {
    "published": Kl16Config(),
    "small": Kl16Config(32, (1, 2), blocks=1, attention_levels=(), latent_channels=4, image_channels=1),
    "attention_in_two_levels": Kl16Config(32, (1, 1, 2), attention_levels=(0, 2)),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_table_names_exactly_the_parameters_of_the_network(config):
    images = jnp.zeros((1, 32, 32, config.image_channels))
    params = jax.eval_shape(lambda: Kl16Autoencoder(config).init(jax.random.key(0), images))["params"]
    shapes = {path: leaf.shape for path, leaf in flatten_dict(params, sep="/").items()}
    assert name_table(config).our_shapes() == shapes


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_sizes_follow_from_shapes(config):
    assert infer_config(name_table(config).reference_shapes(), "file") == config


def test_training_losses_are_known_and_unused():
    config = CONFIGS["small"]
    shapes = name_table(config).reference_shapes() | {"loss.logvar": (), "other": (1,)}
    assert [unused.reference for unused in name_table(config, shapes).unused] == ["loss.logvar"]


def test_other_networks_are_refused():
    with pytest.raises(
        UserError, match=r"file is not a KL-16 checkpoint: it has no convolution encoder.conv_in.weight"
    ):
        infer_config({"class_emb.weight": (10, 32)}, "file")
