"""Which meshes can run a model."""

import dataclasses

import pytest

from tests.support.meshes import mesh_of
from transdiff_jax.config import ModelConfig
from transdiff_jax.errors import UserError
from transdiff_jax.model.mesh_checks import check_implementation

CUDNN = ModelConfig(dtype="bfloat16", attention="cudnn", dropout=0.0)


def test_cudnn_where_it_cannot_run():
    check_implementation(CUDNN, mesh_of("gpu"), training=True)
    check_implementation(dataclasses.replace(CUDNN, dropout=0.1, attention_dropout=0.0), mesh_of("gpu"), training=True)
    dropping = dataclasses.replace(CUDNN, dropout=0.1)
    check_implementation(dropping, mesh_of("gpu"), training=False)
    check_implementation(dataclasses.replace(dropping, attention="xla"), mesh_of("cpu"), training=True)
    with pytest.raises(
        UserError, match=r"config\.model\.attention_dropout=0 in place of 0\.1, or with .*attention=\"xla\""
    ):
        check_implementation(dropping, mesh_of("gpu"), training=True)
    with pytest.raises(UserError, match=r"needs NVIDIA GPUs, but these devices are tpu"):
        check_implementation(CUDNN, mesh_of("tpu"), training=False)
    flash = dataclasses.replace(CUDNN, attention="flash")
    check_implementation(flash, mesh_of("tpu"), training=True)
    with pytest.raises(UserError, match=r'"flash" needs TPUs, but these devices are gpu'):
        check_implementation(flash, mesh_of("gpu"), training=False)
    with pytest.raises(UserError, match=r'"flash" cannot drop attention weights'):
        check_implementation(dataclasses.replace(flash, dropout=0.1), mesh_of("tpu"), training=True)
    wide = dataclasses.replace(CUDNN, heads=3)  # each of size 256
    check_implementation(wide, mesh_of("gpu"), training=True)
    with pytest.raises(UserError, match=r"at most 128 on GPUs of compute capability 8\.9, but .* = 256: use"):
        check_implementation(wide, mesh_of("gpu", "8.9"), training=False)
    odd = dataclasses.replace(CUDNN, class_tokens=7, num_images=4)
    check_implementation(odd, mesh_of("gpu"), training=False)
    with pytest.raises(UserError, match=r"even numbers of tokens only, but .*class_tokens=7 and \d+ semantic"):
        check_implementation(odd, mesh_of("gpu"), training=True)
