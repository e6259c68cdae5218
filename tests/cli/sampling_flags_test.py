import pytest
from absl import flags

from tests.support.configs import tiny_config
from tests.support.meshes import mesh_of
from transdiff_jax.cli.sampling_flags import SamplingFlags
from transdiff_jax.errors import UserError


def parse(*arguments):
    values = flags.FlagValues()
    sampling = SamplingFlags(values)
    values(["command", *arguments])
    return sampling


@pytest.mark.parametrize(
    ("arguments", "sizes"), [((), (8, 1, 1)), (("--mesh=1,-1,1",), (1, 8, 1)), (("--mesh=2,2,2",), (2, 2, 2))]
)
def test_mesh(arguments, sizes):
    assert tuple(parse(*arguments).mesh().shape.values()) == sizes


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("8", "--mesh=8 must be DATA,FSDP,TENSOR, such as --mesh=1,-1,1"),
        ("1,8,1,1", "--mesh=1,8,1,1 must be DATA,FSDP,TENSOR"),
        ("1,all,1", "--mesh: 'all' is not a whole number"),
        ("3,1,1", "--mesh=(data=3, fsdp=1, tensor=1) does not fit 8 device(s)"),
    ],
)
def test_a_mesh_that_is_none_is_one_line(value, message):
    with pytest.raises(UserError) as caught:
        parse(f"--mesh={value}").mesh()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_weights_of_a_tokenizer_do_not_go_with_a_run_of_pixels():
    with pytest.raises(UserError, match="--tokenizer has an effect only on runs with KL-16; this run makes pixels"):
        parse("--tokenizer=/nope").apply(tiny_config(), mesh_of("cpu"))


def test_an_empty_tokenizer_is_refused_by_its_flag():
    config = tiny_config(data={"image_size": 64}, tokenizer={"kind": "kl16"})
    with pytest.raises(UserError, match=r"^--tokenizer= is empty"):
        parse("--tokenizer=").apply(config, mesh_of("cpu"))


def test_dtypes_and_attention():
    config = tiny_config(data={"image_size": 64}, tokenizer={"kind": "kl16", "weights": "w"})
    chosen = parse("--dtype=bfloat16", "--tokenizer_dtype=bfloat16").apply(config, mesh_of("cpu"))
    assert (chosen.model.dtype, chosen.model.attention, chosen.tokenizer.dtype) == ("bfloat16", "xla", "bfloat16")
    chosen = parse("--attention=xla").apply(config, mesh_of("gpu"))
    assert (chosen.model.dtype, chosen.model.attention, chosen.tokenizer.dtype) == ("bfloat16", "xla", "float32")
    with pytest.raises(flags.IllegalFlagValueError, match="--dtype=float16: value should be one of"):
        parse("--dtype=float16")
    assert {"dtype", "attention", "tokenizer_dtype"} <= set(parse().names()), "transdiff evaluate asks for --workdir"
