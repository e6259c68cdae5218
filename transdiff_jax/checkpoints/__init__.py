"""A run on disk: its checkpoints, which of them counts, its record, and its weights."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.checkpoints.record import RunRecord
    from transdiff_jax.checkpoints.store import CheckpointStore
    from transdiff_jax.checkpoints.weights import Weights, latest_record, load_weights

__all__ = [
    "CheckpointStore",
    "RunRecord",
    "Weights",
    "latest_record",
    "load_weights",
]
