"""Writes weights that were not trained here as a run: it can be sampled and fine-tuned, but not resumed."""

from pathlib import Path

import jax.numpy as jnp

from transdiff_jax.checkpoints.record import FOLDER, NO_DATA, RunRecord
from transdiff_jax.checkpoints.store import CheckpointStore
from transdiff_jax.config import Config
from transdiff_jax.errors import UserError
from transdiff_jax.model.params import Params
from transdiff_jax.training.state import TrainState


def check_new(out: Path) -> None:
    """Makes the folder of a new run.

    Raises:
        UserError: it cannot be made, or already holds a run.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out} cannot be used: {error.strerror}") from None
    if (out / FOLDER).exists():
        raise UserError(f"{out} already holds checkpoints; choose another folder")


def save_converted(
    out: Path, config: Config, params: Params, ema: Params, *, step: int = 0, class_names: tuple[str, ...] = ()
) -> None:
    """Writes a run without optimizer state.

    Args:
        out: its folder.
        config: with one average.
        params: the parameters.
        ema: the average.
        step: of the training that made them.
        class_names: of all classes; empty if unknown.

    Raises:
        UserError: it cannot be written.
    """
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(zero + step, zero, zero, params, opt_state=(), ema=(ema,))
    store = CheckpointStore(out, keep_last=1)
    try:
        store.save(step, state, RunRecord(config, NO_DATA, train_seconds=0.0, class_names=class_names))
    finally:
        store.close()
