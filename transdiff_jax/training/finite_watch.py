"""Watches the steps of a run for losses and gradients that are not finite."""

import collections
from typing import Any

import numpy as np
from absl import logging

from transdiff_jax.errors import UserError

# How many steps the check of a step's finiteness lags behind its dispatch, so that the device never waits for it.
CHECK_LAG = 2


class FiniteWatch:
    """Reports skipped steps with the records of their batch, and stops a run that no longer learns."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pending: collections.deque[tuple[int, dict[str, Any], np.ndarray]] = collections.deque()

    def add(self, step: int, metrics: dict[str, Any], indices: np.ndarray) -> None:
        """Notes step number `step` (from 1) and looks at those that are old enough to be computed."""
        self._pending.append((step, metrics, indices))
        if len(self._pending) > CHECK_LAG:
            self._check(*self._pending.popleft())

    def finish(self) -> None:
        """Looks at all steps noted so far."""
        while self._pending:
            self._check(*self._pending.popleft())

    def _check(self, step: int, metrics: dict[str, Any], indices: np.ndarray) -> None:
        if metrics["finite"]:
            return
        loss, norm, streak = float(metrics["loss"]), float(metrics["gradient_norm"]), int(metrics["skipped_in_a_row"])
        shown = np.unique(indices).tolist()
        logging.warning("step %d skipped: loss %s, gradient norm %s; records of the batch: %s", step, loss, norm, shown)
        if streak >= self._limit:
            raise UserError(
                f"training stopped at step {step}: loss or gradient norm was not finite in each of the last {streak} "
                f"steps, since step {step - streak + 1} (config.train.max_nonfinite_steps={self._limit}); lower "
                "config.optimizer.learning_rate or look at the records named above"
            )
