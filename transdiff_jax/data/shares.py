"""Which rows of each global batch a process reads: those that its devices hold."""

from collections.abc import Sequence
from typing import Any

import grain
from jax.sharding import Mesh

from transdiff_jax import sharding
from transdiff_jax.errors import UserError


def share_of_process(mesh: Mesh) -> grain.sharding.ShardOptions:
    """This process's share of a batch that is sharded over a mesh: a part of so many equal runs of rows.

    Processes whose devices differ in the tensor axis only hold, and read, the same rows.

    Raises:
        UserError: its devices hold no single run of rows.
    """
    count = sharding.batch_shards(mesh)
    rows = sharding.batch_sharding(mesh).addressable_devices_indices_map((count,)).values()
    held = sorted({index.start or 0 for (index,) in rows})
    first, size = held[0], len(held)
    if held != list(range(first, first + size)) or count % size or first % size:
        raise UserError(
            f"config.mesh={dict(mesh.shape)}: the devices of a process hold parts {held} of {count} of a batch, which "
            "are no run of rows; let config.mesh.tensor divide the number of its devices, or be a multiple of it"
        )
    return grain.sharding.ShardOptions(first // size, count // size)


class RunsOfRows(grain.MapDataset):
    """Reorders each global batch so that shard p of n, rows p, p + n, p + 2n, … of it, is the p-th run of its rows.

    `grain.experimental.ElasticIterator` deals rows out in turns, while a sharded array is made of runs: without this
    the rows of a batch would have another order on another number of processes.
    """

    def __init__(self, parent: grain.MapDataset, batch_size: int, shards: int) -> None:
        super().__init__(parent)
        self._batch_size, self._shards = batch_size, shards

    def __len__(self) -> int:
        return len(self._parent)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        return self._parent[self._reordered(index)]

    def _getitems(self, indices: Sequence[int]) -> Sequence[Any]:
        return self._parent._getitems([self._reordered(index) for index in indices])

    def _reordered(self, index: int) -> int:
        row = index % self._batch_size
        turn, shard = divmod(row, self._shards)
        return index - row + shard * (self._batch_size // self._shards) + turn
