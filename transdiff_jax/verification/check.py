"""One comparison with the reference, and how far it may be off."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

# Relative errors that float32 explains: of one pass, and of what feeds on itself (a trajectory, three training steps)
# or sums over a batch (gradients).
ONE_PASS = 1e-5
MANY_PASSES = 1e-4
# Of one tensor's gradient, relative to itself, however small it is beside the others.
ONE_TENSOR = 1e-3
# Of norms: the reference adds up a tensor's squares in float32, which is off by 1e-4 for a few million of them.
NORM = 1e-3
# Of scores, which are computed in float64 from the same features.
SCORE = 1e-6


class Check(NamedTuple):
    """One comparison."""

    name: str
    relative_error: float
    tolerance: float
    reason: str | None = None  # why there is nothing to compare, where there is not

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
    return _ratio(np.linalg.norm(ours - reference), np.linalg.norm(reference))


def relative_error_of_all(ours: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> float:
    """The relative error of all of the reference's tensors as one vector.

    Tensor by tensor: a full-size model in float64, and its difference, would fill the memory.
    """
    norms = []
    for name, tensor in reference.items():
        if ours[name].shape != tensor.shape:
            return math.inf
        exact = np.asarray(tensor, np.float64)
        norms.append((np.linalg.norm(ours[name] - exact), np.linalg.norm(exact)))
    difference, norm = np.linalg.norm(np.array(norms), axis=0)
    return _ratio(difference, norm)


def _ratio(difference: float, norm: float) -> float:
    if norm == 0:
        return 0.0 if difference == 0 else math.inf
    return float(difference / norm)
