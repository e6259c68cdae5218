"""Watches the steps of a run for losses and gradients that are not finite."""

import collections

import numpy as np
from absl import logging
from jaxtyping import Int

from transdiff_jax.errors import UserError
from transdiff_jax.training.step import Metrics

# A step is checked this many steps after its dispatch, so that the device never waits for the check.
CHECK_LAG = 2


class FiniteWatch:
    """Logs skipped steps with the records of their batch, and stops a run that no longer learns."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pending: collections.deque[tuple[int, Metrics, np.ndarray]] = collections.deque()

    def add(self, step: int, metrics: Metrics, indices: Int[np.ndarray, "..."]) -> None:
        """Notes a step, and checks the step that is old enough to be computed.

        Args:
            step: its number, from 1.
            metrics: of the step.
            indices: of the records in its batch.

        Raises:
            UserError: too many steps in a row were not finite.
        """
        self._pending.append((step, metrics, indices))
        if len(self._pending) > CHECK_LAG:
            self._check(*self._pending.popleft())

    def finish(self) -> None:
        """Checks all steps noted so far; raises like `add`."""
        while self._pending:
            self._check(*self._pending.popleft())

    def _check(self, step: int, metrics: Metrics, indices: np.ndarray) -> None:
        if metrics["finite"]:
            return
        loss, norm, streak = float(metrics["loss"]), float(metrics["gradient_norm"]), int(metrics["skipped_in_a_row"])
        shown = np.unique(indices).tolist()
        logging.warning("step %d skipped: loss %s, gradient norm %s; records of the batch: %s", step, loss, norm, shown)
        if streak >= self._limit:
            raise UserError(
                f"training stopped at step {step}: loss or gradient norm was not finite in each of the last {streak} "
                f"steps, since step {step - streak + 1} (config.train.max_nonfinite_steps={self._limit}); lower "
                "config.optimizer.learning_rate or check the records named above"
            )
