"""Finds the step of a run's checkpoints that counts: the newest whose files match its manifest."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import overload

import numpy as np
from absl import logging

from transdiff_jax.errors import UserError
from transdiff_jax.parallel.processes import in_first_process
from transdiff_jax.storage.checksums import find_damage

DAMAGED_FOLDER = "damaged"
_NONE = -1


@overload
def agreed(find: Callable[[], int]) -> int: ...
@overload
def agreed(find: Callable[[], int | None]) -> int | None: ...
def agreed(find: Callable[[], int | None]) -> int | None:
    """In all processes what `find` returns in the first, because each may see another state of the file system."""

    def encoded() -> np.ndarray:
        step = find()
        return np.array([_NONE if step is None else step])

    (step,) = in_first_process(encoded, 1, np.int32)
    return None if step == _NONE else int(step)


def saved_steps(folder: Path) -> list[int]:
    """The committed steps in ascending order, intact or not."""
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def to_read(folder: Path, asked: int | None = None) -> int:
    """The newest intact step, or step `asked` if it is intact; changes nothing.

    Raises:
        UserError: there is no such step.
    """
    if asked is not None:
        if asked not in saved_steps(folder):
            raise UserError(f"{folder} holds no checkpoint of step {asked}; choose one of {saved_steps(folder)}")
        if damage := find_damage(folder / str(asked)):
            raise UserError(f"the checkpoint of step {asked} in {folder} is damaged ({damage}); choose another step")
        return asked
    step, damaged = _newest_intact(folder)
    if step is None:
        raise UserError(f"{folder} holds no intact checkpoint (damaged ones: {sorted(damaged)}); train there first")
    return step


def to_resume(folder: Path) -> int | None:
    """The newest intact step, or None if there are no steps; moves newer damaged steps out of the way.

    Raises:
        UserError: there are steps, but all are damaged.
    """
    step, damaged = _newest_intact(folder)
    if step is None and damaged:
        raise UserError(
            f"{folder} holds no intact checkpoint: all of steps {sorted(damaged)} are damaged; move the folder away to "
            "start from scratch"
        )
    for number in damaged:
        _set_aside(folder, number)
    return step


def _set_aside(folder: Path, step: int) -> None:
    target = folder.parent / DAMAGED_FOLDER / str(step)
    while target.exists():
        target = target.with_name(target.name + "-again")
    target.parent.mkdir(exist_ok=True)
    shutil.move(folder / str(step), target)
    logging.warning("moved the damaged checkpoint of step %d to %s", step, target)


def _newest_intact(folder: Path) -> tuple[int | None, list[int]]:
    """The newest step whose files match its manifest, and the damaged steps that are newer."""
    damaged = []
    for step in reversed(saved_steps(folder)):
        damage = find_damage(folder / str(step))
        if damage is None:
            return step, damaged
        logging.warning("checkpoint of step %d in %s is damaged (%s), trying the one before it", step, folder, damage)
        damaged.append(step)
    return None, damaged
