"""Programming error: a cell that is asked for g ends at G = g + s(g) z, z ~ N(0, 1), not below zero when clipped.

Clipped, with a = g/s (rectified Gaussian):

    E G   = g Phi(a) + s phi(a)                       (1)
    E G^2 = (g^2 + s^2) Phi(a) + g s phi(a)           (2)

A cell asked for 0 then has mean s/sqrt(2 pi) and variance (1/2 - 1/(2 pi)) s^2 = 0.3408 s^2.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from scipy.special import ndtr

from devices.base.jit import jit
from devices.base.quantity import format_quantity
from devices.law import CellLaw, CellMoments, Scope, Values, check_error_rel

INV_SQRT_2PI, INV_SQRT_2 = 1.0 / math.sqrt(2.0 * math.pi), math.sqrt(0.5)


FAR = 9.0
"""Standard deviations above zero beyond which clipping takes less than 1e-18 of anything."""


def clipped_moments(target: Values, std: Values | float) -> tuple[Values, Values]:
    """Return mean and variance of max(target + std z, 0), by (1) and (2); std may be zero anywhere."""
    target, std = np.broadcast_arrays(np.asarray(target, np.float64), np.asarray(std, np.float64))
    mean, variance = np.empty(target.size), np.empty(target.size)
    _fill_clipped(target.ravel(), std.ravel(), mean, variance)
    return mean.reshape(target.shape), variance.reshape(target.shape)


@jit()
def _fill_clipped(target: Values, std: Values, mean: Values, variance: Values) -> None:
    """Fill mean and variance, flat; without cancellation: above zero through the small tail that is lost."""
    for i in range(target.size):
        t, s = target[i], std[i]
        if s == 0.0 or t > FAR * s:
            mean[i], variance[i] = t, s * s
            continue
        a = t / s
        pdf = INV_SQRT_2PI * math.exp(-0.5 * a * a)
        if a > 0.0:
            tail = 0.5 * math.erfc(a * INV_SQRT_2)
            lost = pdf - a * tail  # E max(-a - z, 0), the mean of what was clipped away
            mean[i] = s * (a + lost)
            unit = 1.0 - tail - a * lost - lost * lost
        else:  # with t = -a: Var = s^2 [ Phi(a) (1 + a^2) + a phi - (a Phi + phi)^2 ]
            cdf = 0.5 * math.erfc(-a * INV_SQRT_2) if a < 0.0 else 0.5
            kept = a * cdf + pdf
            mean[i] = s * kept
            unit = cdf + a * kept - kept * kept
        variance[i] = s * s * max(unit, 0.0)


@jit()
def _fill_stored(target: Values, std: Any, z: Values, clip: bool, stored: Values) -> None:
    """Fill what is stored, flat, in one pass."""
    if clip:
        for i in range(z.size):
            value = z[i] * std + target[i]
            stored[i] = value if value > 0.0 else 0.0
    else:
        for i in range(z.size):
            stored[i] = z[i] * std + target[i]


class GaussianError(CellLaw):
    """A Gaussian programming error whose standard deviation a subclass gives; drawn once per programming."""

    __slots__ = ()
    cause: ClassVar[str] = "programming"
    scope: ClassVar[Scope] = "programming"
    clip: bool

    @abstractmethod
    def std_siemens(self, target_siemens: Values, g_max_siemens: float) -> Values | float:
        """Return the standard deviation s(g) before clipping: one for each target, or one for all."""

    @abstractmethod
    def in_words(self, g_max_siemens: float) -> str:
        """Return what the law's numbers mean at this range."""

    @abstractmethod
    def scaled(self, factor: float) -> Self:
        """Return the law with standard deviations `factor` times as large."""

    def moments(self, target_siemens: Values, g_max_siemens: float) -> CellMoments:
        std = self.std_siemens(target_siemens, g_max_siemens)
        if self.clip:
            mean, variance = clipped_moments(target_siemens, std)
        else:
            mean, variance = target_siemens, np.broadcast_to(np.asarray(std) ** 2, np.shape(target_siemens))
        return CellMoments(mean_siemens=mean, variance_siemens2=variance)

    def sample(self, target_siemens: Values, g_max_siemens: float, *, normals: Values) -> Values:
        std = np.asarray(self.std_siemens(target_siemens, g_max_siemens), normals.dtype)
        target, z = target_siemens.astype(normals.dtype, copy=False), np.ascontiguousarray(normals)
        if std.ndim == 0 and target.shape == z.shape:
            stored = np.empty_like(z)
            _fill_stored(np.ascontiguousarray(target).reshape(-1), std[()], z.reshape(-1), self.clip, stored.reshape(-1))
            return stored
        stored = z * std
        stored += target
        return np.maximum(stored, 0.0, out=stored) if self.clip else stored


N_BISECTIONS = 60


def precompensated_by_bisection(law: GaussianError, target_siemens: Values, g_max_siemens: float) -> Values:
    """Return g' with E G(g') - E G(0) = g; where the mean falls short of that even at twice the range, that is the answer."""
    base = law.moments(np.zeros(1), g_max_siemens).mean_siemens[0]
    low, high = np.zeros_like(target_siemens), np.full_like(target_siemens, 2.0 * g_max_siemens)
    for _ in range(N_BISECTIONS):
        middle = 0.5 * (low + high)
        short = law.moments(middle, g_max_siemens).mean_siemens - base < target_siemens
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return np.where(target_siemens > 0.0, 0.5 * (low + high), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateIndependentError(GaussianError):
    """The same error at every state: s = error_rel * g_max, a fraction of the technology's range."""

    kind: ClassVar[str] = "state_independent"
    error_rel: float
    clip: bool = True

    def __post_init__(self) -> None:
        check_error_rel(self.error_rel)

    def std_siemens(self, target_siemens: Values, g_max_siemens: float) -> float:
        return self.error_rel * g_max_siemens

    def in_words(self, g_max_siemens: float) -> str:
        size = format_quantity(self.error_rel * g_max_siemens, "siemens", n_digits=4)
        return f"programming error {self.error_rel:g} of g_max ({format_quantity(g_max_siemens, 'siemens', n_digits=4)}) = {size} a cell"

    def scales_with(self) -> Literal["nothing"]:
        return "nothing"

    def scaled(self, factor: float) -> Self:
        return replace(self, error_rel=factor * self.error_rel)

    def precompensated(self, target_siemens: Values, g_max_siemens: float) -> Values:
        """Return g' with  g' Phi(g'/s) + s phi(g'/s) - s/sqrt(2 pi) = g  (unique, g' >= 0), by Newton's method.

        Both cells of a pair are asked for g'; the one that stores nothing keeps its mean s/sqrt(2 pi), and so the
        pair's mean is exactly what was wanted.
        """
        std = self.error_rel * g_max_siemens
        if not self.clip or std == 0.0:
            return target_siemens
        wanted = target_siemens / std + INV_SQRT_2PI
        a = np.maximum(target_siemens / std, 0.0)
        for _ in range(60):
            residual = a * ndtr(a) + INV_SQRT_2PI * np.exp(-0.5 * a * a) - wanted
            step = residual / ndtr(a)
            a = np.maximum(a - step, 0.0)
            if np.max(np.abs(step), initial=0.0) < 1e-14 * max(1.0, float(np.max(a, initial=0.0))):
                break
        return a * std


@dataclass(frozen=True, slots=True, kw_only=True)
class ProportionalError(GaussianError):
    """An error proportional to the state: s = error_rel * g. A cell at zero stays at zero."""

    kind: ClassVar[str] = "proportional"
    error_rel: float
    clip: bool = True

    def __post_init__(self) -> None:
        check_error_rel(self.error_rel)

    def std_siemens(self, target_siemens: Values, g_max_siemens: float) -> Values:
        return self.error_rel * target_siemens

    def in_words(self, g_max_siemens: float) -> str:
        g_max = format_quantity(g_max_siemens, "siemens", n_digits=4)
        return f"programming error {self.error_rel:g} of each cell's own conductance ({g_max}) a cell"

    def scales_with(self) -> Literal["target"]:
        return "target"

    def scaled(self, factor: float) -> Self:
        return replace(self, error_rel=factor * self.error_rel)

    def precompensated(self, target_siemens: Values, g_max_siemens: float) -> Values:
        """Return the target over the mean gain of the clipped error, `Phi(1/r) + r phi(1/r)`, r = error_rel."""
        if not self.clip or self.error_rel == 0.0:
            return target_siemens
        mean, _ = clipped_moments(np.ones(1), np.full(1, self.error_rel))
        return target_siemens / float(mean[0])
