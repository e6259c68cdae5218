import pytest
from absl import flags

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
