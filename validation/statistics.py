"""Comparing what is predicted with what was sampled: z-scores, and the moments of vectors from independent batches."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from workloads.operators.base import Array

ROUNDING = 1e-12
"""Relative difference that float64 rounding alone explains."""


def z_of_means(expected: Array, samples: Array) -> Array:
    """Return the distance of `expected` from the means of `samples` (last axis), in standard errors.

    Where the samples do not vary, 0 when they equal `expected` to rounding, else infinity.
    """
    mean = samples.mean(axis=-1)
    error = samples.std(axis=-1, ddof=1) / np.sqrt(samples.shape[-1])
    difference = mean - expected
    exact = np.abs(difference) <= ROUNDING * (np.abs(mean) + np.abs(expected))
    varies = error > ROUNDING * np.abs(mean)
    return np.where(varies, difference / np.where(varies, error, 1.0), np.where(exact, 0.0, np.inf))


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentsAgreement:
    """How far a predicted mean and covariance are from samples: z-scores, and relative sizes of what differs.

    Parameters
    ----------
    mean
        Largest |z| over the elements of the mean.
    frobenius
        z of the squared Frobenius distance, estimated without bias from pairs of distinct batches.
    trace, total
        z of the trace of the covariance and of the sum of all its elements.
    trace_rel, total_rel, frobenius_rel
        Predicted over sampled, less one; and the distance over the norm (0 where it is lost in the noise).
    """

    mean: float
    frobenius: float
    trace: float
    total: float
    trace_rel: float
    total_rel: float
    frobenius_rel: float

    @property
    def worst(self) -> float:
        """Largest |z| of all."""
        return max(abs(self.mean), abs(self.frobenius), abs(self.trace), abs(self.total))


def moments_agreement(mean: Array, covariance: Array, batches: Iterable[Array]) -> MomentsAgreement:
    """Compare a mean `(n,)` and covariance `(n, n)` with independent batches of samples `(n, n_samples)`, of equal size.

    Deviations are from the predicted mean, so every estimate is unbiased when the prediction is right. With D_b the excess
    of batch b's covariance, |E D|^2 is estimated by the mean of <D_a, D_b> over a != b.
    """
    means, excess, sums, n_samples = [], [], [], 0
    for y in batches:
        deviation = y - mean[:, None]
        matrix = deviation @ deviation.T / y.shape[1]
        n_samples += y.shape[1]
        means.append(deviation.mean(axis=1))
        excess.append((matrix - covariance).ravel())
        sums.append((np.trace(matrix), matrix.sum()))
    totals = np.array(sums).T
    expected = np.array([np.trace(covariance), covariance.sum()])
    z_trace, z_total = z_of_means(expected, totals)
    z_frobenius, distance2 = _frobenius(np.array(excess), float(np.linalg.norm(covariance)))
    rel = expected / np.maximum(totals.mean(axis=1), 1e-300) - 1.0
    norm = float(np.linalg.norm(covariance))
    return MomentsAgreement(
        mean=_z_of_mean(np.array(means), covariance, n_samples), frobenius=z_frobenius, trace=float(z_trace), total=float(z_total),
        trace_rel=float(rel[0]), total_rel=float(rel[1]), frobenius_rel=float(np.sqrt(max(distance2, 0.0))) / max(norm, 1e-300),
    )


def _z_of_mean(deviations: Array, covariance: Array, n_samples: int) -> float:
    """Return the largest |z| over elements; the error of a mean is the sampled one, or the predicted one where that is larger.

    An element that is almost never on may not vary in the samples at all. Elements that cannot differ but by rounding count as 0.
    """
    error = np.maximum(deviations.std(axis=0, ddof=1) / np.sqrt(len(deviations)), np.sqrt(np.diag(covariance) / n_samples))
    error = np.maximum(error, ROUNDING * np.sqrt(np.trace(covariance)))
    return float(np.abs(deviations.mean(axis=0) / np.where(error > 0.0, error, 1.0)).max(initial=0.0))


def _frobenius(excess: Array, norm: float) -> tuple[float, float]:
    n = len(excess)
    gram = excess @ excess.T
    pairs = gram[np.triu_indices(n, 1)]
    distance2 = float(pairs.mean())
    error = float(np.sqrt(np.mean(pairs**2) / len(pairs)))
    return (0.0 if error <= (1e-9 * norm) ** 2 else distance2 / error), distance2
