"""Covariance of two rectified Gaussians, exact and without cancellation.

For jointly Gaussian x, y with means m, deviations s, correlation r; a = m_x / s_x, b = m_y / s_y:

    Cov(relu x, relu y) = s_x s_y { r Phi(a) Phi(b)
        + 1/(2 pi) int_0^{asin r} (r - sin t) exp( -(a^2 + b^2 - 2 a b sin t) / (2 cos^2 t) ) dt }                   (1)

The integral is smooth: 12 Gauss-Legendre nodes leave 2e-8 of s_x s_y.
"""

import math

import numpy as np
from scipy.special import ndtr

from devices.base.jit import jit
from workloads.operators.base import Array

N_NODES = 16


@jit()
def _pairs(a: Array, b: Array, cdf_a: Array, cdf_b: Array, r: Array, nodes: Array, weights: Array, out: Array) -> None:
    """out[i, j] = the braces of (1) for a[i], b[j], r[i, j]."""
    for i in range(a.size):
        for j in range(b.size):
            rho = min(max(r[i, j], -1.0), 1.0)
            top = math.asin(rho)
            total = 0.0
            squares, product = a[i] * a[i] + b[j] * b[j], 2.0 * a[i] * b[j]
            if squares < 1400.0 or abs(rho) > 0.5:
                for k in range(nodes.size):
                    sine = math.sin(top * nodes[k])
                    cosine2 = 1.0 - sine * sine
                    if cosine2 > 1e-300:
                        total += weights[k] * (rho - sine) * math.exp(-(squares - product * sine) / (2.0 * cosine2))
            out[i, j] = rho * cdf_a[i] * cdf_b[j] + top * total / (2.0 * math.pi)


def relu_covariance(mean: Array, std: Array, covariance: Array, other_mean: Array, other_std: Array) -> Array:
    """Return Cov(relu x_i, relu y_j) of (1) for means and deviations `(n,)`, `(m,)` and their covariance `(n, m)`."""
    x, w = np.polynomial.legendre.leggauss(N_NODES)
    safe, other_safe = np.where(std > 0, std, 1.0), np.where(other_std > 0, other_std, 1.0)
    a = np.where(std > 0, mean / safe, np.where(mean > 0, 40.0, -40.0))
    b = np.where(other_std > 0, other_mean / other_safe, np.where(other_mean > 0, 40.0, -40.0))
    out = np.empty(covariance.shape)
    _pairs(a, b, ndtr(a), ndtr(b), covariance / np.outer(safe, other_safe), 0.5 * (x + 1.0), 0.5 * w, out)
    return out * np.outer(np.where(std > 0, std, 0.0), np.where(other_std > 0, other_std, 0.0))
