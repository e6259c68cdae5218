import jax
import pytest

from transdiff_jax.data import same_records
from transdiff_jax.data.same_records import check_same_records


class Records:
    """Records by their names."""

    def __init__(self, ids, class_names=("a", "b")):
        self.ids, self.class_names = ids, class_names

    def __len__(self):
        return len(self.ids)

    def id(self, index):
        return self.ids[index]


NAMES = [f"n{index}" for index in range(9)]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (Records(NAMES), True),
        (Records(NAMES[:-1]), False),
        (Records(NAMES[::-1]), False),
        (Records(NAMES, ("a", "c")), False),
        (Records([]), False),
    ],
)
def test_what_differs_between_processes_is_seen(monkeypatch, other, same):
    seen = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(same_records, "check_same", lambda value, message: seen.append((value, message)))
    check_same_records(Records(NAMES), "config.data.source=folder:a")
    check_same_records(other, "config.data.source=folder:a")
    assert (seen[0] == seen[1]) == same
    assert seen[0][1].startswith("config.data.source=folder:a does not hold the same records in all processes")
