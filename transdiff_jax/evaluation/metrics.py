"""Distances between sets of features, in float64 on the host."""

from typing import NamedTuple

import numpy as np
import scipy.linalg


class Gaussian(NamedTuple):
    """Mean [d] and covariance [d, d] of a set of features."""

    mean: np.ndarray
    covariance: np.ndarray


def fit_gaussian(features: np.ndarray) -> Gaussian:
    """Mean and unbiased covariance (N - 1) of [n, d] features."""
    features = features.astype(np.float64)
    return Gaussian(features.mean(axis=0), np.cov(features, rowvar=False))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Fréchet distance |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    The trace of the root is the sum of the roots of the eigenvalues of S1 S2, which are real and not negative; this
    holds for singular covariances too.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features differ in width: {a.mean.shape} and {b.mean.shape}")
    eigenvalues = scipy.linalg.eigvals(a.covariance @ b.covariance)
    root_trace = np.sqrt(np.maximum(eigenvalues.real, 0)).sum()
    mean_term = np.sum((a.mean - b.mean) ** 2)
    return float(mean_term + np.trace(a.covariance) + np.trace(b.covariance) - 2 * root_trace)
