"""Moments of a clipped and of a quantized Gaussian, exactly, one element at a time.

With z ~ N(m, s^2), a = (low - m)/s, b = (high - m)/s, w = (z - m)/s, and the losses beyond a limit

    psi(t) = E max(w - t, 0) = phi(t) - t Phi(-t),     chi(t) = E max(w - t, 0)^2 = (1 + t^2) Phi(-t) - t phi(t)

a clipped Gaussian (a <= 0 <= b) has

    mean = m + s [psi(-a) - psi(b)],     gain = Phi(b) - Phi(a)                                              (1)
    E (w clipped)^2 = 1 - chi(-a) - chi(b) + 2 a psi(-a) - 2 b psi(b)                                        (2)

and from its limit, without cancellation, where both limits are on one side (0 < a):

    E (w clipped - a) = psi(a) - psi(b),     E (w clipped - a)^2 = chi(a) - chi(b) - 2 (b - a) psi(b)        (3)

A staircase with steps of height h at thresholds t_j, whose code at m is c, has N = (Q(z) - Q(m))/h with

    E N   = sum_{j > c} P(z > t_j) - sum_{j <= c} P(z < t_j)                                                 (4)
    E N^2 = sum_{j > c} (2 (j - c) - 1) P(z > t_j) + sum_{j <= c} (2 (c - j) + 1) P(z < t_j)                 (5)
    gain  = Cov(Q, z)/s^2 = (h/s) sum_j phi((t_j - m)/s)                                                     (6)

Where many steps of an even staircase are within reach, the sums are had in closed form. Away from the ends by the sawtooth's
Fourier series (B. Widrow & I. Kollar, Quantization Noise, 2008, ch. 4): with u = m/h from a code, E_k = exp(-2 pi^2 k^2 s^2/h^2),

    E Q - m   = h sum_k (-1)^k sin(2 pi k u) E_k / (pi k),     gain = 1 + 2 sum_k (-1)^k cos(2 pi k u) E_k   (7)
    Var Q     = s^2 (2 gain - 1) + h^2 [1/12 + sum_k (-1)^k cos(2 pi k u) E_k / (pi k)^2] - (E Q - m)^2      (8)

and near the ends, for s > 4 h, by Euler's and Maclaurin's formula of the midpoint rule, with f^(n) the n-th derivative:

    h sum_j f(t_j) = int f + sum_k c_k h^2k [f^(2k-1)]_low^high,     c_k = B_2k(1/2)/(2k)!                   (9)

The integral is the clipped Gaussian, and f = P(z > t), 2 (t - r) P(z > t) and the density give E Q, E (Q - r)^2 and the gain.
"""

import math

import numpy as np

from devices.base.jit import jit
from devices.law import Values

INV_SQRT_2PI, INV_SQRT_2 = 1.0 / math.sqrt(2.0 * math.pi), math.sqrt(0.5)
REACH = 8.5
"""Standard deviations beyond which a Gaussian has less than 1e-16."""
UNDERFLOW = 38.0
"""Standard deviations beyond which a Gaussian's density is 0 in float64."""
SMALLEST_FOURIER, SMALLEST_EULER = 0.5, 4.0
"""Standard deviations over the step: with three harmonics (7) leaves out exp(-78); with five terms (9) leaves out 1e-12."""
N_HARMONICS, N_TERMS, N_NARROW = 3, 5, 8
MIDPOINT = (-1.0 / 24.0, 7.0 / 5760.0, -31.0 / 967680.0, 127.0 / 154828800.0, -73.0 / 3503554560.0)
"""c_k of (9): B_2k(1/2) = -(1 - 2^(1-2k)) B_2k, over (2k)!."""
_NODES, _WEIGHTS = (0.5 * v for v in np.polynomial.legendre.leggauss(N_NARROW))
NODES, WEIGHTS = tuple(float(v) for v in _NODES), tuple(float(v) for v in _WEIGHTS)
"""Gauss and Legendre's on -1/2..1/2, for windows narrower than a standard deviation."""


@jit()
def _pdf(t: float) -> float:
    return INV_SQRT_2PI * math.exp(-0.5 * t * t) if abs(t) < UNDERFLOW else 0.0


@jit()
def _above(t: float) -> float:
    """Return P(w > t)."""
    return 0.5 * math.erfc(t * INV_SQRT_2)


@jit()
def _psi(t: float) -> float:
    return max(_pdf(t) - t * _above(t), 0.0) if t < UNDERFLOW else 0.0


@jit()
def _chi(t: float) -> float:
    return max((1.0 + t * t) * _above(t) - t * _pdf(t), 0.0) if t < UNDERFLOW else 0.0


@jit()
def _narrow(a: float, width: float) -> tuple[float, float]:
    """Return E (y - a) and E (y - a)^2 for y = w clipped to a..a + width <= a + 1: the integrals of P(w > t) and 2 (t - a) P(w > t)."""
    first, second = 0.0, 0.0
    for node, weight in zip(NODES, WEIGHTS):
        t = (node + 0.5) * width
        p = weight * _above(a + t)
        first += p
        second += 2.0 * t * p
    return width * first, width * second


@jit()
def _clipped(a: float, b: float, width: float) -> tuple[float, float, float, float]:
    """Return a sign, d, Var y and P(a < w < b) for y = w clipped to a..b, by (1) to (3): E y is a + d, or b - d for the sign -1.

    Counted from the nearer limit, means far beyond it lose no digits; `width` is b - a, which these would lose.
    """
    if a + b < 0.0:  # its mirror image, so that the nearer limit is the lower one
        d, variance, gain = _clipped_above(-b, -a, width)
        return -1.0, d, variance, gain
    d, variance, gain = _clipped_above(a, b, width)
    return 1.0, d, variance, gain


@jit()
def _clipped_above(a: float, b: float, width: float) -> tuple[float, float, float]:
    gain = _above(a) - _above(b)
    if width <= 1.0:
        first, second = _narrow(a, width)
        return first, max(second - first * first, 0.0), gain
    if a > 0.0:
        first = _psi(a) - _psi(b)
        second = _chi(a) - _chi(b) - 2.0 * width * _psi(b) if b < UNDERFLOW else _chi(a)
        return first, max(second - first * first, 0.0), gain
    below, above = _psi(-a), _psi(b)
    mean = below - above
    lost = _chi(-a) + _chi(b) + (-2.0 * a * below if below > 0.0 else 0.0) + (2.0 * b * above if above > 0.0 else 0.0)
    return mean - a, max(1.0 - lost - mean * mean, 0.0), gain


@jit()
def fill_clipped(m: Values, v: Values, low: float, high: float, mean: Values, variance: Values, gain: Values) -> None:
    """Fill the moments of clip(z, low, high), flat; no variance is the value itself."""
    for i in range(m.size):
        if not v[i] > 0.0:
            mean[i], variance[i] = min(max(m[i], low), high), 0.0
            gain[i] = 1.0 if low <= m[i] <= high else 0.0
            continue
        s = math.sqrt(v[i])
        side, d, spread, gain[i] = _clipped((low - m[i]) / s, (high - m[i]) / s, (high - low) / s)
        mean[i] = min(max(low + s * d if side > 0.0 else high - s * d, low), high)
        variance[i] = v[i] * spread


@jit()
def _end_terms(tau: float, rho: float, eta: float) -> tuple[float, float, float]:
    """Return the terms of (9) at one end, tau, for E (Q - r)/s, E (Q - r)^2/s^2 and the gain; lengths over s, r at rho.

    With g(t) = Phi(-t): g^(n) = (-1)^n He_(n-1) phi, and phi^(n) = (-1)^n He_n phi.
    """
    first, second, gain = 0.0, 0.0, 0.0
    pdf = _pdf(tau)
    if pdf == 0.0:
        return 0.0, MIDPOINT[0] * eta * eta * 2.0 * _above(tau), 0.0
    he_before, he = 0.0, 1.0  # He_(2k-3), He_(2k-2)
    power = 1.0
    for k in range(1, N_TERMS + 1):
        power *= eta * eta
        lower = _above(tau) if k == 1 else he_before * pdf  # g^(2k-2)
        he_next = tau * he - (2 * k - 2) * he_before  # He_(2k-1)
        c = MIDPOINT[k - 1] * power
        first -= c * he * pdf
        second += c * (2.0 * (2 * k - 1) * lower - 2.0 * (tau - rho) * he * pdf)
        gain -= c * he_next * pdf
        he_before, he = he_next, tau * he_next - (2 * k - 1) * he
    return first, second, gain


@jit()
def _wide(a: float, b: float, eta: float, width: float) -> tuple[float, float, float, float]:
    """Return a sign, d, Var Q/s^2 and the gain for many steps within reach, by (9): (E Q - m)/s is a + d, or b - d for the sign -1.

    a, b, eta, width: low - m, high - m, h, high - low, over s.
    """
    side, d, variance, gain = _clipped(a, b, width)
    rho = a + d if side > 0.0 else b - d
    at_a, at_b = _end_terms(a, rho, eta), _end_terms(b, rho, eta)
    shift = at_b[0] - at_a[0]
    return side, d + side * shift, max(variance + at_b[1] - at_a[1] - shift * shift, 0.0), gain + at_b[2] - at_a[2]


@jit()
def _inside(u: float, s: float) -> tuple[float, float, float]:
    """Return E Q - m, Var Q and the gain away from the ends, by (7) and (8); lengths in steps."""
    shift, sawtooth, gain = 0.0, 1.0 / 12.0, 1.0
    for k in range(1, N_HARMONICS + 1):
        size = math.exp(-2.0 * (math.pi * k * s) ** 2)
        if size == 0.0:
            break
        sign = -size if k % 2 == 1 else size
        angle = 2.0 * math.pi * k * (u - np.rint(u))
        shift += sign * math.sin(angle) / (math.pi * k)
        gain += 2.0 * sign * math.cos(angle)
        sawtooth += sign * math.cos(angle) / (math.pi * k) ** 2
    return shift, max(s * s * (2.0 * gain - 1.0) + sawtooth - shift * shift, 0.0), gain


@jit()
def _stepwise(u: float, s: float, c: float, k_low: float, k_high: float) -> tuple[float, float, float]:
    """Return E N, Var N and the gain by (4) to (6), from the code c of the mean u; lengths in steps."""
    first, second, density = 0.0, 0.0, 0.0
    for sign, n in ((1.0, k_high - c), (-1.0, c - k_low)):
        start, j = sign * (c - u), 1.0
        while j <= n:
            t = (start + j - 0.5) / s
            if t > REACH:
                break
            p = _above(t)
            first += sign * p
            second += (2.0 * j - 1.0) * p
            density += _pdf(t)
            j += 1.0
    return first, max(second - first * first, 0.0), density / s


@jit()
def fill_even(m: Values, v: Values, grid: tuple[float, float, float, float], mean: Values, variance: Values, gain: Values) -> None:
    """Fill the moments of an even staircase, flat; `grid` is (offset, step, k_low, k_high), its codes offset + k step."""
    offset, step, k_low, k_high = grid
    for i in range(m.size):
        u = (m[i] - offset) / step
        c = min(max(np.rint(u), k_low), k_high)
        if u != u or v[i] != v[i]:
            mean[i], variance[i], gain[i] = np.nan, np.nan, np.nan
            continue
        if v[i] <= 0.0:
            mean[i], variance[i], gain[i] = offset + c * step, 0.0, 1.0 if offset + k_low * step <= m[i] <= offset + k_high * step else 0.0
            continue
        s = math.sqrt(v[i]) / step
        if s > SMALLEST_FOURIER and u - k_low > REACH * s and k_high - u > REACH * s:
            shift, spread, gain[i] = _inside(u, s)
            mean[i], variance[i] = m[i] + shift * step, spread * step * step
        elif s > SMALLEST_EULER and k_high - k_low > 2.0 * REACH * SMALLEST_EULER:
            side, d, spread, gain[i] = _wide((k_low - u) / s, (k_high - u) / s, 1.0 / s, (k_high - k_low) / s)
            mean[i], variance[i] = offset + (k_low + s * d if side > 0.0 else k_high - s * d) * step, spread * v[i]
        else:
            shift, spread, gain[i] = _stepwise(u, s, c, k_low, k_high)
            mean[i], variance[i] = offset + (c + shift) * step, spread * step * step
        mean[i] = min(max(mean[i], offset + k_low * step), offset + k_high * step)


@jit()
def fill_uneven(
    m: Values, v: Values, grid: tuple[float, float, float, float], transitions: Values, mean: Values, variance: Values, gain: Values
) -> None:  # fmt: skip
    """Fill the moments of a staircase of even heights that rises at `transitions`, in order, by (4) to (6), flat."""
    offset, step, k_low, k_high = grid
    lowest, highest, n = offset + k_low * step, offset + k_high * step, transitions.size
    for i in range(m.size):
        if m[i] != m[i] or v[i] != v[i]:
            mean[i], variance[i], gain[i] = np.nan, np.nan, np.nan
            continue
        c = np.searchsorted(transitions, m[i], side="right")
        if v[i] <= 0.0:
            mean[i], variance[i], gain[i] = offset + (k_low + c) * step, 0.0, 1.0 if lowest <= m[i] <= highest else 0.0
            continue
        s = math.sqrt(v[i])
        first, second, density = 0.0, 0.0, 0.0
        for j in range(c, n):
            t = (transitions[j] - m[i]) / s
            if t > REACH:
                break
            p = _above(t)
            first += p
            second += (2.0 * (j - c) + 1.0) * p
            density += _pdf(t)
        for j in range(c - 1, -1, -1):
            t = (m[i] - transitions[j]) / s
            if t > REACH:
                break
            p = _above(t)
            first -= p
            second += (2.0 * (c - j) - 1.0) * p
            density += _pdf(t)
        mean[i] = min(max(offset + (k_low + c + first) * step, lowest), highest)
        variance[i] = max(second - first * first, 0.0) * step * step
        gain[i] = density * step / s
