"""One comparison with the reference, and how far it may be off."""

import math
from typing import NamedTuple

import numpy as np

# Relative errors that float32 explains: of one pass, and of what feeds on itself (a trajectory, three training steps)
# or sums over a batch (gradients).
ONE_PASS = 1e-5
MANY_PASSES = 1e-4
ONE_TENSOR = 1e-3  # of one tensor's gradient, relative to itself, however small it is beside the others


class Check(NamedTuple):
    """One comparison."""

    name: str
    relative_error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the error is within the tolerance; NaN is not."""
        return self.relative_error <= self.tolerance


def relative_error(ours: np.ndarray, reference: np.ndarray) -> float:
    """Norm of the difference over the norm of the reference, in float64; a reference of zeros must be met exactly.

    A different shape is an infinite error: broadcasting would hide it, and raising would hide the other checks.
    """
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    if ours.shape != reference.shape:
        return math.inf
    difference, norm = np.linalg.norm(ours - reference), np.linalg.norm(reference)
    if norm == 0:
        return 0.0 if difference == 0 else math.inf
    return float(difference / norm)
