from typing import NamedTuple

import grain
import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from transdiff_jax.data.shares import RowsOfShare, Shares, shares_of
from transdiff_jax.errors import UserError


def test_one_process_reads_all():
    devices = np.array(jax.devices())
    for shape, parts in (((8, 1, 1), 8), ((2, 2, 2), 4), ((1, 1, 8), 1)):
        shares = shares_of(Mesh(devices.reshape(shape), ("data", "fsdp", "tensor")))
        assert shares == Shares((tuple(range(parts)),))


class Device(NamedTuple):
    number: int
    process_index: int


class Layout:
    """Stands for a mesh whose devices belong to these processes and hold these parts of a batch."""

    def __init__(self, monkeypatch, processes, parts):
        self.shape = {"data": len(set(parts)), "fsdp": 1, "tensor": 1}
        self._held = list(zip(processes, parts, strict=True))
        monkeypatch.setattr("transdiff_jax.data.shares.batch_sharding", lambda mesh: mesh)

    def devices_indices_map(self, shape):
        return {Device(n, process): (slice(part, part + 1),) for n, (process, part) in enumerate(self._held)}


@pytest.mark.parametrize(
    ("processes", "parts", "shares"),
    [
        ([0, 0, 1, 1], range(4), ((0, 1), (2, 3))),
        # A TPU slice, v5e:4x4: the devices follow the rows of chips back and forth, and a process has 2 x 2 chips.
        ([0, 0, 1, 1, 1, 1, 0, 0], range(8), ((0, 1, 6, 7), (2, 3, 4, 5))),
        ([1, 0, 1, 0], range(4), ((0, 2), (1, 3))),
        ([0, 0, 1, 1], [0, 0, 1, 1], ((0,), (1,))),  # the tensor axis inside a process
        ([0, 1, 2, 3], [0, 0, 1, 1], ((0,), (1,))),  # and across two
    ],
)
def test_shares_are_what_the_devices_of_processes_hold(monkeypatch, processes, parts, shares):
    mesh = Layout(monkeypatch, processes, parts)
    for process in set(processes):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        made = shares_of(mesh)
        assert made.parts == shares
        assert set(made.parts[made.own]) == {p for held, p in zip(processes, parts, strict=True) if held == process}


@pytest.mark.parametrize(("processes", "parts"), [([0, 0, 0, 1], range(4)), ([0, 0, 1, 1], [0, 1, 1, 2])])
def test_uneven_shares(monkeypatch, processes, parts):
    with pytest.raises(UserError, match=r"^config\.mesh=.*: the \d parts of a batch fall unevenly on processes"):
        shares_of(Layout(monkeypatch, processes, parts))


@pytest.mark.parametrize("first", [0, 24, 40])  # 40: a run of batches of 8 or 20 goes on with batches of 24
@pytest.mark.parametrize("parts", [((0, 1, 2, 3),), ((0, 1), (2, 3)), ((0, 3), (1, 2)), ((0,), (1,), (2,), (3,))])
def test_every_row_is_read_once_by_who_holds_its_part(parts, first):
    batch, count = 24, 3
    rows = grain.MapDataset.range(first + batch * count)
    for share, own in enumerate(parts):
        dealt = RowsOfShare(rows, batch, Shares(parts, share), first)
        assert dealt.rows == batch // len(parts)
        held = [first + n * batch + part * 6 + row for n in range(count) for part in own for row in range(6)]
        assert [dealt[index] for index in range(len(dealt))] == held
        assert list(dealt.batch(2)[3]) == held[6:8]
