"""Training: state, step, averages, optimizer, fine-tuning, and the loop around them."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.training.loop import train
    from transdiff_jax.training.metric_writers import read_metrics
    from transdiff_jax.training.optimizer import make_optimizer
    from transdiff_jax.training.state import TrainState, create_state
    from transdiff_jax.training.step import make_train_step

__all__ = [
    "TrainState",
    "create_state",
    "make_optimizer",
    "make_train_step",
    "read_metrics",
    "train",
]
