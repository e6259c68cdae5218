"""Finds the step of a run's checkpoints that counts: the newest whose files match its manifest."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from absl import logging

from transdiff_jax.checkpoints.checks import check_step
from transdiff_jax.checkpoints.step_names import saved_steps, warn_of_others
from transdiff_jax.errors import UserError
from transdiff_jax.storage.checksums import DamageError
from transdiff_jax.storage.paths import move_tree

DAMAGED_FOLDER = "damaged"
Checked = TypeVar("Checked")


def newest_intact(
    folder: Path, steps: Sequence[int], check: Callable[[Path], Checked]
) -> tuple[Checked | None, dict[int, str]]:
    """The newest step that `check` accepts.

    Args:
        folder: the run's checkpoints.
        steps: in ascending order.
        check: called with a step's folder; raises `DamageError`.

    Returns:
        What `check` returned for that step (None if all are damaged), and what is wrong with each newer step.
    """
    damaged: dict[int, str] = {}
    for step in reversed(steps):
        try:
            return check(folder / str(step)), damaged
        except DamageError as damage:
            logging.warning(
                "checkpoint of step %d in %s is damaged (%s), trying the one before it", step, folder, damage
            )
            damaged[step] = str(damage)
    return None, damaged


def nothing_intact(folder: Path, damaged: dict[int, str], advice: str) -> UserError:
    """The error if no step can be used.

    Args:
        folder: the run's checkpoints.
        damaged: what is wrong with each step, the newest first.
        advice: what to do.
    """
    if not damaged:
        return UserError(f"{folder} holds no checkpoint; {advice}")
    newest = max(damaged)
    return UserError(
        f"{folder} holds no intact checkpoint: all of steps {sorted(damaged)} are damaged (step {newest}: "
        f"{damaged[newest]}); {advice}"
    )


def to_resume(folder: Path) -> int | None:
    """The newest intact step, or None if there are no steps; moves newer damaged steps out of the way.

    Raises:
        UserError: there are steps, but all are damaged.
    """
    warn_of_others(folder)
    steps = saved_steps(folder)
    intact, damaged = newest_intact(folder, steps, check_step)
    if intact is None and damaged:
        raise nothing_intact(folder, damaged, "move the folder away to start from scratch")
    for number in damaged:
        _set_aside(folder, number)
    return max((step for step in steps if step not in damaged), default=None)


def _set_aside(folder: Path, step: int) -> None:
    target = folder.parent / DAMAGED_FOLDER / str(step)
    while target.exists():
        target = target.with_name(target.name + "-again")
    target.parent.mkdir(exist_ok=True)
    move_tree(folder / str(step), target)
    logging.warning("moved the damaged checkpoint of step %d to %s", step, target)
