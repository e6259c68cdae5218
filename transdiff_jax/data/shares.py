"""Decides which rows of each global batch a process reads: those that its devices hold."""

import dataclasses
from collections.abc import Sequence
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

    @property
    def options(self) -> grain.sharding.ShardOptions:
        """The own share, for Grain."""
        return grain.sharding.ShardOptions(self.own, len(self.parts))


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


class RowsOfShares(grain.MapDataset[Item]):
    """Reorders each global batch so that its rows p, p + n, p + 2n, … (Grain's shard p of n) are those of share p.

    `grain.experimental.ElasticIterator` deals rows out in turns, but a sharded array consists of parts. Without this,
    the rows of a batch would have another order on another number of processes.

    Batches are counted from row `first`, where the run started or resumed: after a change of the batch size that row
    need not be a multiple of it.
    """

    def __init__(self, parent: grain.MapDataset[Item], batch_size: int, shares: Shares, first: int = 0) -> None:
        super().__init__(parent)
        self._batch_size, self._parts, self._first = batch_size, shares.parts, first

    def __len__(self) -> int:
        return len(self._parent)

    @overload
    def __getitem__(self, index: slice) -> grain.MapDataset[Item]: ...
    @overload
    def __getitem__(self, index: int) -> Item | None: ...
    def __getitem__(self, index: int | slice) -> Item | grain.MapDataset[Item] | None:
        if isinstance(index, slice):
            return self.slice(index)
        return self._parent[self._reordered(index)]

    def _getitems(self, indices: Sequence[int]) -> Sequence[Item | None]:
        return self._parent._getitems([self._reordered(index) for index in indices])

    def _reordered(self, index: int) -> int:
        row = (index - self._first) % self._batch_size
        turn, share = divmod(row, len(self._parts))
        rows_of_part = self._batch_size // (len(self._parts) * len(self._parts[share]))
        part, offset = divmod(turn, rows_of_part)
        return index - row + self._parts[share][part] * rows_of_part + offset
