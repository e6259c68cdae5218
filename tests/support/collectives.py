"""The arrays that a compiled program moves between devices."""

import re


def moved(program):
    """(kind, shape) of each array that a collective of a compiled program makes, on one device."""
    found = re.findall(r"= (\(.*?\)|\S+) (all-[a-z]+|reduce-scatter|collective-[a-z]+)\(", program.as_text())
    return [
        (kind, tuple(int(size) for size in sizes.split(",") if size))
        for arrays, kind in found
        for sizes in re.findall(r"\[([\d,]*)\]", arrays)
    ]
