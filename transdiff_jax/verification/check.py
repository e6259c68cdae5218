"""One comparison with the release, and the error that it may have."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

# Float32 explains relative errors up to these: of one pass, and of what feeds on itself (a trajectory, three training
# steps) or sums over a batch (gradients).
ONE_PASS = 1e-5
MANY_PASSES = 1e-4
# The gradient of one tensor, relative to itself, however small it is beside the others.
ONE_TENSOR = 1e-3
# Norms: the release sums a tensor's squares in float32, which errs by 1e-4 for a few million of them.
NORM = 1e-3
# Scores: both sides compute them in float64 from the same features.
SCORE = 1e-6


class Check(NamedTuple):
    """One comparison."""

    name: str
    relative_error: float
    tolerance: float
    reason: str | None = None  # why nothing could be compared; None where something was

    @property
    def ok(self) -> bool:
        """Whether the error is within the tolerance; NaN never is."""
        return self.relative_error <= self.tolerance


def relative_error(ours: ArrayLike, reference: ArrayLike) -> float:
    """Norm of the difference over the norm of the reference, in float64.

    A reference of zeros must be met exactly. A different shape is an infinite error: broadcasting would hide it, and
    raising would hide the other checks.
    """
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    if ours.shape != reference.shape:
        return math.inf
    return _ratio(float(np.linalg.norm(ours - reference)), float(np.linalg.norm(reference)))


def relative_error_of_all(ours: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> float:
    """The relative error of all reference tensors as one vector.

    Goes tensor by tensor: in float64, a full-size model and its difference would fill the memory. The error is infinite
    if a reference has no tensor of ours, or if there is no reference.
    """
    norms = []
    for name, tensor in reference.items():
        if name not in ours or ours[name].shape != tensor.shape:
            return math.inf
        exact = np.asarray(tensor, np.float64)
        norms.append((np.linalg.norm(ours[name] - exact), np.linalg.norm(exact)))
    if not norms:
        return math.inf
    difference, norm = np.linalg.norm(np.array(norms), axis=0)
    return _ratio(difference, norm)


def _ratio(difference: float, norm: float) -> float:
    if norm == 0:
        return 0.0 if difference == 0 else math.inf
    return float(difference / norm)
