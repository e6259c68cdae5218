import pytest
from absl import flags

from transdiff_jax.cli import benchmark, cache_latents, convert, evaluate, sample
from transdiff_jax.cli.number_flags import define_integer
from transdiff_jax.config.ranges import Range

COMMANDS = (benchmark, cache_latents, convert, evaluate, sample)
INTEGERS = [
    (module, name)
    for module in COMMANDS
    for name in module.FLAGS
    if isinstance(module.FLAGS[name].parser, flags.IntegerParser)
]


def test_a_number_outside_of_the_range_is_one_line():
    values = flags.FlagValues()
    holder = define_integer("size", 4, Range(1, 9), "A size.", values)
    values(["command", "--size=9"])
    assert holder.value == 9
    with pytest.raises(flags.Error, match=r"flag --size=10: 10 is not an integer in the range \[1, 9\]"):
        values(["command", "--size=10"])


@pytest.mark.parametrize(("module", "name"), INTEGERS, ids=lambda value: getattr(value, "__name__", value))
def test_every_whole_number_of_a_command_has_bounds(module, name):
    flag = module.FLAGS[name]
    for value in (flag.parser.lower_bound - 1, flag.parser.upper_bound + 1, 10**20):
        with pytest.raises(ValueError, match="is not an integer in the range"):
            flag.parser.parse(str(value))
