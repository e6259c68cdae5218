import logging

import pytest

from tests.support.configs import tiny_config
from tests.support.meshes import mesh_of
from transdiff_jax.config import ModelConfig
from transdiff_jax.errors import UserError
from transdiff_jax.generation.numerics import Numerics, choices, with_numerics

RUN = tiny_config()
ON_GPUS = tiny_config(model={"dtype": "bfloat16", "attention": "cudnn"})
NARROW = tiny_config(model={"heads": 4})  # each of size 4, which cuDNN does not take
WIDE = tiny_config(model={"width": 512, "heads": 2})  # each of size 256: Hopper alone
KL16 = {"kind": "kl16", "weights": "w"}


@pytest.mark.parametrize(
    ("config", "mesh", "asked", "chosen"),
    [
        (RUN, mesh_of("cpu"), {}, ("float32", "xla")),
        (RUN, mesh_of("tpu"), {}, ("float32", "xla")),
        (RUN, mesh_of("tpu"), {"dtype": "bfloat16"}, ("bfloat16", "xla")),
        (RUN, mesh_of("gpu"), {}, ("bfloat16", "cudnn")),
        (RUN, mesh_of("gpu"), {"dtype": "float32"}, ("float32", "xla")),
        (RUN, mesh_of("gpu"), {"attention": "xla"}, ("bfloat16", "xla")),
        (RUN, mesh_of("gpu"), {"attention": "cudnn"}, ("bfloat16", "cudnn")),
        (RUN, mesh_of("gpu"), {"dtype": "float32", "attention": "xla"}, ("float32", "xla")),
        (RUN, mesh_of("gpu", "7.0"), {}, ("float32", "xla")),
        (RUN, mesh_of("gpu", "gfx90a"), {}, ("float32", "xla")),
        (NARROW, mesh_of("gpu"), {}, ("bfloat16", "xla")),
        (WIDE, mesh_of("gpu"), {}, ("bfloat16", "cudnn")),
        (WIDE, mesh_of("gpu", "8.0"), {}, ("bfloat16", "xla")),
        (ON_GPUS, mesh_of("cpu"), {}, ("bfloat16", "xla")),
        (ON_GPUS, mesh_of("cpu"), {"dtype": "float32"}, ("float32", "xla")),
        (ON_GPUS, mesh_of("gpu"), {"dtype": "float32"}, ("float32", "xla")),
    ],
)
def test_what_is_asked_for_and_else_what_the_devices_do_best(config, mesh, asked, chosen, caplog):
    with caplog.at_level(logging.INFO):
        found = with_numerics(config, mesh, Numerics(**asked))
    assert (found.model.dtype, found.model.attention) == chosen
    values = config.to_dict()
    values["model"] |= {"dtype": chosen[0], "attention": chosen[1]}
    assert found.to_dict() == values, "nothing else changes"
    assert caplog.messages == [f"computing in {chosen[0]} with the attention of {chosen[1]}"]


def test_the_tokenizer_computes_as_in_the_run_unless_asked(caplog):
    config = tiny_config(data={"image_size": 64, "image_channels": 3}, tokenizer=KL16)
    for asked, dtype in ((None, "float32"), ("bfloat16", "bfloat16")):
        with caplog.at_level(logging.INFO):
            found = with_numerics(config, mesh_of("gpu"), Numerics(tokenizer_dtype=asked))
        assert found.tokenizer.dtype == dtype
        assert caplog.messages[-1] == f"computing in bfloat16 with the attention of cudnn, tokenizer in {dtype}"


@pytest.mark.parametrize(
    ("config", "mesh", "asked", "message"),
    [
        (
            RUN,
            mesh_of("cpu"),
            {"attention": "cudnn", "dtype": "bfloat16"},
            "needs NVIDIA GPUs, but these devices are cpu",
        ),
        (RUN, mesh_of("gpu"), {"attention": "cudnn", "dtype": "float32"}, 'needs config.model.dtype="bfloat16"'),
        (NARROW, mesh_of("gpu"), {"attention": "cudnn"}, "needs heads whose size is a multiple of 8"),
        (WIDE, mesh_of("gpu", "8.0"), {"attention": "cudnn"}, "heads of at most 128 on GPUs of compute capability 8.0"),
        (RUN, mesh_of("cpu"), {"dtype": "float16"}, "config.model.dtype='float16' is not one of 'float32', 'bfloat16'"),
        (RUN, mesh_of("cpu"), {"tokenizer_dtype": "float32"}, "tokenizer_dtype has an effect only on runs with KL-16"),
    ],
)
def test_what_cannot_run_is_refused_and_not_replaced(config, mesh, asked, message):
    with pytest.raises(UserError) as caught:
        with_numerics(config, mesh, Numerics(**asked))
    assert message in str(caught.value)


def test_choices_are_those_of_the_configuration():
    assert choices("dtype") == choices("tokenizer_dtype") == ("float32", "bfloat16")
    assert ModelConfig().attention in choices("attention")
