"""Write and verify: a cell is written again until it is within a window of its target, at most n times.

One write misses by e ~ N(0, s^2) and is accepted with p = P(|e| <= w). What is left after at most n writes is a mixture: with
a = 1 - (1 - p)^n a Gaussian truncated to the window, otherwise one truncated to what is outside (the last write stays),

    density = phi_s(e) (a / p if |e| <= w else (1 - a) / (1 - p)),     E writes = (1 - (1 - p)^n) / p                       (1)

Moments are integrals of the Gaussian over intervals, with clipping too: with x = (e - g) between limits,

    int phi_s de = Phi,    int e phi_s de = -s^2 phi_s,    int e^2 phi_s de = s^2 Phi - s^2 e phi_s                            (2)

Samples are the quantiles of one normal: the order of cells' errors is that of their normals, so designs are compared on common draws.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np
from scipy.special import ndtr, ndtri

from devices.base.quantity import format_quantity
from devices.law import CellMoments, Values
from devices.programming import INV_SQRT_2PI, GaussianError, StateIndependentError, precompensated_by_bisection
from devices.writing import WriteVerify


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedError(GaussianError):
    """The error (1) that is left of a Gaussian one."""

    kind: ClassVar[str] = "write_verified"
    single: GaussianError
    writing: WriteVerify

    @property
    def clip(self) -> bool:  # type: ignore[override]
        """Whether a conductance that would be negative is zero instead."""
        return self.single.clip

    def _shares(self, target: Values, g_max: float) -> tuple[Values, float, Values, Values]:
        """Return s, w, and the weights of the density within the window and outside of it."""
        std = np.broadcast_to(np.asarray(self.single.std_siemens(target, g_max), np.float64), np.shape(target))
        window = self.writing.window_rel * g_max
        c = np.divide(window, std, out=np.full(std.shape, np.inf), where=std > 0.0)
        outside = 2.0 * ndtr(-c)
        refused = outside**self.writing.max_writes
        inside = np.divide(1.0 - refused, 1.0 - outside, out=np.ones_like(c), where=outside < 1.0)
        beyond = np.divide(refused, outside, out=np.zeros_like(c), where=outside > 0.0)
        return std, window, inside, beyond

    def mean_writes(self, target_siemens: Values, g_max_siemens: float) -> Values:
        """Return how often a cell is written on average, by (1)."""
        return self._shares(target_siemens, g_max_siemens)[2]

    def std_siemens(self, target_siemens: Values, g_max_siemens: float) -> Values:
        """Return the standard deviation of what is left, before clipping."""
        std, window, inside, beyond = self._shares(target_siemens, g_max_siemens)
        within = _partial(-window, window, std)[2]
        return np.sqrt(np.maximum(inside * within + beyond * (std**2 - within), 0.0))

    def moments(self, target_siemens: Values, g_max_siemens: float) -> CellMoments:
        target = np.asarray(target_siemens, np.float64)
        if not self.clip:
            return CellMoments(mean_siemens=target, variance_siemens2=self.std_siemens(target, g_max_siemens) ** 2)
        std, window, inside, beyond = self._shares(target, g_max_siemens)
        edges = [-np.inf, -window, window, np.inf]
        shift, second = np.zeros_like(target), np.zeros_like(target)  # of max(e, -g)
        for low, high, weight in zip(edges, edges[1:], (beyond, inside, beyond)):
            start = np.clip(-target, low, high)
            _, first, square = _partial(start, np.broadcast_to(high, std.shape), std)
            lost, _, _ = _partial(np.broadcast_to(low, std.shape), start, std)
            shift += weight * (first - target * lost)
            second += weight * (square + np.where(lost > 0.0, target, 0.0) ** 2 * lost)
        return CellMoments(mean_siemens=target + shift, variance_siemens2=np.maximum(second - shift**2, 0.0))

    def sample(self, target_siemens: Values, g_max_siemens: float, *, normals: Values) -> Values:
        std, window, _, _ = self._shares(target_siemens, g_max_siemens)
        with np.errstate(divide="ignore", invalid="ignore"):
            outside = 2.0 * ndtr(-window / std)
            refused = outside**self.writing.max_writes
            tail = ndtr(-np.abs(normals).astype(np.float64))  # probability beyond this normal, on its side
            within = 0.5 - (0.5 - tail) * (1.0 - outside) / (1.0 - refused)
            beyond = tail * np.where(refused > 0.0, outside / refused, 0.0)
            e = np.where(tail < 0.5 * refused, -ndtri(beyond), -ndtri(within)) * np.sign(normals) * std
        stored = (target_siemens + np.where(std > 0.0, e, 0.0)).astype(normals.dtype)
        return np.maximum(stored, 0.0) if self.clip else stored

    def in_words(self, g_max_siemens: float) -> str:
        """Return what the law's numbers mean at this range."""
        middle = np.full(1, 0.5 * g_max_siemens)
        left = format_quantity(float(self.std_siemens(middle, g_max_siemens)[0]), "siemens", n_digits=4)
        writes = float(self.mean_writes(middle, g_max_siemens)[0])
        return f"{self.single.in_words(g_max_siemens)}, verified to {left} in {writes:.3g} writes a cell on average (at half the range)"

    def scales_with(self) -> Literal["nothing", "target", "state"]:
        return "nothing" if isinstance(self.single, StateIndependentError) else "state"

    def scaled(self, factor: float) -> Self:
        return replace(self, single=self.single.scaled(factor))

    def precompensated(self, target_siemens: Values, g_max_siemens: float) -> Values:
        """Return g' with E G(g') - E G(0) = g, by bisection; both cells of a pair are asked for theirs."""
        if not self.clip:
            return target_siemens
        return precompensated_by_bisection(self, target_siemens, g_max_siemens)


def _partial(low: Values | float, high: Values | float, std: Values) -> tuple[Values, Values, Values]:
    """Return (2), the moments of order 0, 1 and 2 of a Gaussian between two limits; zero where it has no spread."""
    live = np.where(std > 0.0, std, 1.0)
    a, b = (np.broadcast_to(np.asarray(limit, np.float64), std.shape) / live for limit in (low, high))
    pa, pb = (INV_SQRT_2PI * np.exp(-0.5 * np.minimum(np.abs(limit), 1e8) ** 2) for limit in (a, b))
    ea, eb = (np.where(np.isfinite(limit), limit, 0.0) for limit in (a, b))
    zeroth = np.where(a > 0.0, ndtr(-a) - ndtr(-b), ndtr(b) - ndtr(a))
    first, second = live * (pa - pb), live**2 * (zeroth + ea * pa - eb * pb)
    keep = std > 0.0
    return np.where(keep, zeroth, 0.0), np.where(keep, first, 0.0), np.where(keep, second, 0.0)
