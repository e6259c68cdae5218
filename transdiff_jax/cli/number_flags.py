"""Flags that hold a whole number in a range."""

import math

from absl import flags

from transdiff_jax.config.ranges import Range


def define_integer(
    name: str, default: int | None, allowed: Range, meaning: str, flag_values: flags.FlagValues
) -> flags.FlagHolder:
    """Defines a flag; absl refuses a number outside of the range in one line that names flag, number and range.

    Args:
        name: of the flag.
        default: its value where the command line does not give it.
        allowed: its range, without open ends.
        meaning: for --help.
        flag_values: the command's flags.
    """
    low, high = math.ceil(allowed.low), math.floor(allowed.high)
    return flags.DEFINE_integer(name, default, meaning, low, high, flag_values=flag_values)
