"""Several devices and processes: mesh, logical axes, global arrays, joining a job, work of one process for all."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.parallel.arrays import batch_sharding, from_whole, replicate, to_global
    from transdiff_jax.parallel.lookahead import dispatched
    from transdiff_jax.parallel.mesh import check_batch, make_mesh
    from transdiff_jax.parallel.processes import is_first
    from transdiff_jax.parallel.progress import Progress
    from transdiff_jax.parallel.row_batches import map_rows

__all__ = [
    "Progress",
    "batch_sharding",
    "check_batch",
    "dispatched",
    "from_whole",
    "is_first",
    "make_mesh",
    "map_rows",
    "replicate",
    "to_global",
]
