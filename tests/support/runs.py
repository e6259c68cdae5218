"""Runs with checkpoints of a tiny model, made without training."""

import jax
import numpy as np

from tests.support.configs import tiny_config
from transdiff_jax.checkpoints.record import RunRecord
from transdiff_jax.checkpoints.store import CheckpointStore
from transdiff_jax.training.state import abstract_state

CONFIG = tiny_config(train={"ema_rates": (0.9, 0.5)})


def make_state(mesh, seed=0):
    """A state of random numbers, all different, as a function of the seed."""
    draw = np.random.default_rng(seed)

    def fill(leaf):
        values = draw.normal(size=leaf.shape) if leaf.dtype == np.float32 else draw.integers(100, size=leaf.shape)
        return jax.device_put(values.astype(leaf.dtype), leaf.sharding)

    return jax.tree.map(fill, abstract_state(CONFIG, mesh))


def record_of(step):
    return RunRecord(CONFIG, {"global_next_index": 8 * step}, 1.5 * step)


def save_steps(workdir, state, steps, **options):
    store = CheckpointStore(workdir, **{"keep_last": 10, **options})
    for step in steps:
        store.save(step, state, record_of(step))
    store.close()
