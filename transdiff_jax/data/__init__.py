"""Turns sources of records into training batches."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.data.pipeline import TrainingData, open_records, training_rows

__all__ = [
    "TrainingData",
    "open_records",
    "training_rows",
]
