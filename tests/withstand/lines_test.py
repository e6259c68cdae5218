"""Absurd command lines: each ends with 0 or with 2 and one line, within bounds, and writes only where it is told to."""

import collections

import pytest

from tests.withstand.linecases import FIRST, LINES, reads_nothing
from tests.withstand.lines_train import field_lines


def test_a_share_of_all_lines(attack_by_line):
    lines = [*FIRST, *[line for line in LINES[len(FIRST) :] if reads_nothing(line)][::120]]
    found = {line: attack_by_line.complaint(line, base="traps") for line in lines}
    bad = [f"{line}: {words}" for line, words in found.items() if words]
    assert not bad, "\n\n".join(bad)


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_each_line(attack_by_line, line):
    words = attack_by_line.complaint(line)
    assert words is None, words


@pytest.mark.slow
@pytest.mark.parametrize("line", list(field_lines()))
def test_each_field(attack_by_line, line):
    words = attack_by_line.complaint(line)
    assert words is None, words


def test_no_line_stands_twice():
    assert [line for line, count in collections.Counter([*LINES, *field_lines()]).items() if count > 1] == []
