import dataclasses
import logging

import flax.linen as nn
import jax
import numpy as np
import pytest

from tests.support.configs import tiny_config
from transdiff_jax.errors import UserError
from transdiff_jax.model.params import init_params
from transdiff_jax.training.finetune import adapt_params, resize_positions


def params_of(model, seed):
    return nn.unbox(init_params(model, seed))


@pytest.fixture
def one_step():
    return tiny_config().model


def test_the_same_architecture_is_taken_as_it_is(config):
    source, fresh = params_of(config.model, 1), params_of(config.model, 2)
    jax.tree.map(np.testing.assert_array_equal, adapt_params(source, fresh, config.model, "there"), source)


def test_one_step_to_mrar_repeats_the_mask_and_starts_the_projection_fresh(one_step, caplog):
    source, fresh = params_of(one_step, 1), params_of(tiny_config(mrar=True).model, 2)
    with caplog.at_level(logging.INFO, logger="absl"):
        adapted = adapt_params(source, fresh, one_step, "there")["encoder"]
    mask = source["encoder"]["mask_embedding"]
    np.testing.assert_array_equal(adapted["mask_embedding"], np.repeat(mask, 4, axis=0))
    np.testing.assert_array_equal(
        adapted["reference_projection"]["kernel"], fresh["encoder"]["reference_projection"]["kernel"]
    )
    np.testing.assert_array_equal(adapted["position_embedding"], source["encoder"]["position_embedding"])
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "starts fresh" in line]) == 2
    assert len([line for line in lines if "encoder/mask_embedding adapted" in line]) == 1


def test_a_larger_latent_resizes_the_decoder_positions(one_step):
    larger = dataclasses.replace(one_step, latent_size=8)
    adapted = adapt_params(params_of(one_step, 1), params_of(larger, 2), one_step, "there")
    assert adapted["decoder"]["position_embedding"].shape == (64, one_step.width)


def test_bilinear_positions_keep_a_linear_ramp():
    rows, columns = np.meshgrid(np.arange(4.0), np.arange(4.0), indexing="ij")
    source = np.stack([rows.flatten(), columns.flatten()], axis=1).astype(np.float32)
    resized = np.asarray(resize_positions(source, (64, 2))).reshape(8, 8, 2)
    # Half-pixel centres: position i of 8 lies at (i + 0.5) / 2 - 0.5 of 4; beyond the border the value stays.
    expected = np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3)
    np.testing.assert_allclose(resized[:, 3, 0], expected, atol=1e-6)
    np.testing.assert_allclose(resized[3, :, 1], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 32}, "has shape"),
        ({"encoder_blocks": 3}, "has shape"),
        ({"num_classes": 11}, "encoder/class_embedding"),
    ],
)
def test_other_differences_are_errors(one_step, change, message):
    other = dataclasses.replace(one_step, **change)
    with pytest.raises(UserError, match=f"config.train.init_from=there does not fit.*{message}"):
        adapt_params(params_of(other, 1), params_of(one_step, 2), other, "there")


def test_parameters_without_a_place_are_errors(one_step):
    mrar = tiny_config(mrar=True).model
    with pytest.raises(UserError, match="does not fit this model"):
        adapt_params(params_of(mrar, 1), params_of(one_step, 2), mrar, "there")
