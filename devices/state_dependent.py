"""Programming errors whose standard deviation is a function of the state, as measured: a polynomial, a table, a saturating curve.

The error is Gaussian about the target, not below zero when clipped; its moments are those of `programming.py` at s(g).
"""

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

import numpy as np

from devices.base.errors import SpecError
from devices.base.toml_codec import about, check_types, raise_faults
from devices.law import Values, check_error_rel
from devices.programming import GaussianError, precompensated_by_bisection

MAX_COEFFICIENTS, MAX_ROWS = 16, 1024
_CLIP = about("Whether a conductance that would be negative is zero instead.")


class StateDependentError(GaussianError):
    """A standard deviation s(g) of its own for each state."""

    __slots__ = ()

    @abstractmethod
    def std_siemens(self, target_siemens: Values, g_max_siemens: float) -> Values:
        """Return s(g), at least 0, for each target."""

    def scales_with(self) -> Literal["state"]:
        return "state"

    def in_words(self, g_max_siemens: float) -> str:
        low, high = (1e6 * float(self.std_siemens(np.array([g]), g_max_siemens)[0]) for g in (0.0, g_max_siemens))
        return f"programming error by state ({self.kind}): {low:.4g} uS at zero, {high:.4g} uS at {1e6 * g_max_siemens:.4g} uS"

    def precompensated(self, target_siemens: Values, g_max_siemens: float) -> Values:
        """Return g' with  E G(g') - E G(0) = g, by bisection; both cells of a pair are asked for theirs.

        Where s grows so fast that the mean of a clipped cell falls short of the target even at 2 g_max, that is the answer.
        """
        if not self.clip:
            return target_siemens
        return precompensated_by_bisection(self, target_siemens, g_max_siemens)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolynomialError(StateDependentError):
    """`s(g) = sum_k c_k (g / over)^k`, not below zero: the form in which most fits are published."""

    kind: ClassVar[str] = "polynomial"
    coefficients_siemens: tuple[float, ...] = field(metadata=about("c_0, c_1, ... of the standard deviation."))
    over_siemens: float = field(metadata=about("Conductance that the polynomial's argument is over.", above=0.0))
    clip: bool = field(default=True, metadata=_CLIP)

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        if not 1 <= len(self.coefficients_siemens) <= MAX_COEFFICIENTS:
            raise SpecError(f"coefficients_siemens: need 1 to {MAX_COEFFICIENTS} of them, got {len(self.coefficients_siemens)}")

    def std_siemens(self, target_siemens: Values, g_max_siemens: float) -> Values:
        x = np.asarray(target_siemens, np.float64) / self.over_siemens
        return np.maximum(np.polynomial.polynomial.polyval(x, np.array(self.coefficients_siemens)), 0.0)

    def scaled(self, factor: float) -> Self:
        return replace(self, coefficients_siemens=tuple(factor * c for c in self.coefficients_siemens))


@dataclass(frozen=True, slots=True, kw_only=True)
class TabulatedError(StateDependentError):
    """s(g) by straight lines between measured points, and constant beyond the first and the last."""

    kind: ClassVar[str] = "tabulated"
    points_siemens: tuple[float, ...] = field(metadata=about("Conductances that were measured, rising.", at_least=0.0))
    stds_siemens: tuple[float, ...] = field(metadata=about("Standard deviation at each of them.", at_least=0.0))
    clip: bool = field(default=True, metadata=_CLIP)

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        n, m = len(self.points_siemens), len(self.stds_siemens)
        if n != m or not 1 <= n <= MAX_ROWS:
            raise SpecError(f"stds_siemens: need one for each of 1 to {MAX_ROWS} points_siemens, got {m} for {n}")
        if np.any(np.diff(self.points_siemens) <= 0.0):
            raise SpecError("points_siemens: need each above the one before; sort the table, and average repeated rows")

    def std_siemens(self, target_siemens: Values, g_max_siemens: float) -> Values:
        return np.interp(np.asarray(target_siemens, np.float64), self.points_siemens, self.stds_siemens)

    def scaled(self, factor: float) -> Self:
        return replace(self, stds_siemens=tuple(factor * s for s in self.stds_siemens))


@dataclass(frozen=True, slots=True, kw_only=True)
class SaturatingError(StateDependentError):
    """`s(g) = top (1 - exp(-g / knee))`: of charge-trap cells, whose error levels off."""

    kind: ClassVar[str] = "saturating"
    top_siemens: float = field(metadata=about("Standard deviation far above the knee.", at_least=0.0))
    knee_siemens: float = field(metadata=about("Conductance over which it rises.", above=0.0))
    clip: bool = field(default=True, metadata=_CLIP)

    def __post_init__(self) -> None:
        raise_faults(check_types(self))

    def std_siemens(self, target_siemens: Values, g_max_siemens: float) -> Values:
        return -self.top_siemens * np.expm1(-np.asarray(target_siemens, np.float64) / self.knee_siemens)

    def scaled(self, factor: float) -> Self:
        return replace(self, top_siemens=factor * self.top_siemens)


@dataclass(frozen=True, slots=True, kw_only=True)
class InverseProportionalError(StateDependentError):
    """`s(g) = error_rel g_max^2 / g`: error_rel g_max at g_max, more below; needs cell.g_min_siemens above zero."""

    kind: ClassVar[str] = "inverse_proportional"
    error_rel: float
    clip: bool = field(default=True, metadata=_CLIP)

    def __post_init__(self) -> None:
        check_error_rel(self.error_rel)

    def std_siemens(self, target_siemens: Values, g_max_siemens: float) -> Values:
        target = np.asarray(target_siemens, np.float64)
        if self.error_rel > 0.0 and np.any(target <= 0.0):
            raise SpecError("cell.programming: inverse_proportional: a cell at zero would err without bounds; give cell.g_min_siemens > 0")
        return self.error_rel * g_max_siemens**2 / np.where(target > 0.0, target, g_max_siemens)

    def scaled(self, factor: float) -> Self:
        return replace(self, error_rel=factor * self.error_rel)

    def in_words(self, g_max_siemens: float) -> str:
        return f"programming error {self.error_rel:g} of g_max at g_max ({1e6 * g_max_siemens:.4g} uS), inversely proportional to the state"

    def precompensated(self, target_siemens: Values, g_max_siemens: float) -> Values:
        """Return the targets: no state is free of error that a pair's mean could be taken from."""
        raise SpecError("mapping.precompensate: inverse_proportional errors grow without bounds towards zero; leave it false")
