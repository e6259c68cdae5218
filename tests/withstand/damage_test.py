"""Damaged files of every kind that a command reads: each case ends with 0 and a right result, or with 2 and one line.

A case is a function of its seed, its kind of file and its mutation. To run one alone:
pytest -m slow "tests/withstand/damage_test.py::test_each_kind[SEED-KIND-MUTATION]"
"""

import os

import pytest

from tests.withstand.cases import VALID, chosen
from tests.withstand.kinds import KINDS

SEED = int(os.environ.get("WITHSTAND_SEED", "0"))
CASES = int(os.environ.get("WITHSTAND_CASES", "20"))  # of each kind; 1000 means all
QUICK = {  # kinds that need few files, and mutations of different sorts
    "read-manifest.json": ("flipped", "leaf_deep_list", "looping"),
    "set-record.json": ("whole_null", "pipe"),
    "set-image": ("halved",),
    "verify-golden": ("number_huge", "dangling"),
}


def test_a_share_of_all_cases(attack):
    cases = [(kind, mutation) for kind, mutations in QUICK.items() for mutation in mutations]
    found = {case: attack.complaint(SEED, *case) for case in cases}
    bad = [f"{case}: {words}" for case, words in found.items() if words]
    assert not bad, "\n\n".join(bad)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "kind", "mutation"),
    [(SEED, kind, mutation) for kind in KINDS for mutation in (VALID, *chosen(SEED, kind, CASES))],
)
def test_each_kind(attack, seed, kind, mutation):
    words = attack.complaint(seed, kind, mutation)
    assert words is None, f"{words}\nagain: pytest -m slow '{__file__}::test_each_kind[{seed}-{kind}-{mutation}]'"


def test_a_case_is_a_function_of_its_seed():
    assert chosen(3, "read-average", 9) == chosen(3, "read-average", 9) != chosen(4, "read-average", 9)
