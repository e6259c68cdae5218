"""Samples of trained models: in memory, or many in a folder by a job that is safe to kill at any moment."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.generation.finished_set import FinishedSet, read_finished
    from transdiff_jax.generation.generate import generate_samples
    from transdiff_jax.generation.loading import load
    from transdiff_jax.generation.request import SampleRequest, balanced_labels
    from transdiff_jax.generation.trained_model import TrainedModel

__all__ = [
    "FinishedSet",
    "SampleRequest",
    "TrainedModel",
    "balanced_labels",
    "generate_samples",
    "load",
    "read_finished",
]
