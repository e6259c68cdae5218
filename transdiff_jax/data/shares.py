"""Decides which rows of each global batch a process reads: those that its devices hold."""

import dataclasses
from typing import TypeVar, overload

import grain
import jax
from jax.sharding import Mesh

from transdiff_jax.errors import UserError
from transdiff_jax.parallel.arrays import batch_sharding
from transdiff_jax.parallel.mesh import batch_shards

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Shares:
    """Which share of a batch each process reads; a share has several parts, the equal runs of rows of the batch.

    On TPUs the devices of a process are neighbours in the network but not in the mesh, so their parts need not be
    adjacent.
    """

    parts: tuple[tuple[int, ...], ...]  # of every share, in order; each part once
    own: int = 0  # this process's share


WHOLE = Shares(((0,),))


def shares_of(mesh: Mesh) -> Shares:
    """The shares of a batch that is sharded over a mesh.

    Processes whose devices differ only in the tensor axis hold, and read, the same rows.

    Raises:
        UserError: two processes share some parts but not all of them, or hold different numbers of parts.
    """
    count = batch_shards(mesh)
    held: dict[int, set[int]] = {}
    for device, (rows,) in batch_sharding(mesh).devices_indices_map((count,)).items():
        held.setdefault(device.process_index, set()).add(rows.start or 0)
    shares = sorted({tuple(sorted(parts)) for parts in held.values()})
    if sum(map(len, shares)) != count or len(set(map(len, shares))) > 1:
        raise UserError(
            f"config.mesh={dict(mesh.shape)}: the {count} parts of a batch fall unevenly on processes "
            f"({', '.join(map(str, shares[:4]))}...); choose a config.mesh.tensor that divides the devices of a process"
        )
    return Shares(tuple(shares), shares.index(tuple(sorted(held[jax.process_index()]))))


class RowsOfShare(grain.MapDataset[Item]):
    """The rows of the own share of each global batch, one batch after another, in the order of the share's parts.

    Batches are counted from row `first`, where the run started or resumed: after a change of the batch size that row
    need not be a multiple of it.

    Args:
        parent: all rows.
        batch_size: rows of a global batch, which the parts of all shares divide.
        shares: which parts of a batch each process reads.
        first: the row of the first batch.
    """

    def __init__(self, parent: grain.MapDataset[Item], batch_size: int, shares: Shares, first: int = 0) -> None:
        super().__init__(parent)
        self._batch_size, self._parts, self._first = batch_size, shares.parts[shares.own], first
        self._rows_of_part = batch_size // (len(shares.parts) * len(self._parts))
        self.rows = self._rows_of_part * len(self._parts)  # of the own share of a batch

    def __len__(self) -> int:
        return (len(self._parent) - self._first) // self._batch_size * self.rows

    @overload
    def __getitem__(self, index: slice) -> grain.MapDataset[Item]: ...
    @overload
    def __getitem__(self, index: int) -> Item | None: ...
    def __getitem__(self, index: int | slice) -> Item | grain.MapDataset[Item] | None:
        if isinstance(index, slice):
            return self.slice(index)
        batch, row = divmod(index, self.rows)
        part, offset = divmod(row, self._rows_of_part)
        return self._parent[self._first + batch * self._batch_size + self._parts[part] * self._rows_of_part + offset]
