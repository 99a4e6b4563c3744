"""Relaxation: after writing, conductances spread and shift with the logarithm of time, by as much at every state.

    G(t) = G + shift L + (spread + widening L) z,   L = ln(t / 1 s),   z ~ N(0, 1),   held within limits       (1)

as fitted to CMO/HfOx memory (Falcone et al., in aihwkit's `reram.py`); nothing at t = 0. Values stored before are
taken to be Gaussian, so that the moments of (1) are those of a clipped Gaussian, in closed form.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from devices.base.errors import SpecError
from devices.base.quantity import format_quantity
from devices.base.toml_codec import about, check_types, raise_faults
from devices.converter import clip_moments
from devices.law import CellLaw, CellMoments, Scope, Values


@dataclass(frozen=True, slots=True, kw_only=True)
class LogarithmicRelaxation(CellLaw):
    """Law (1)."""

    kind: ClassVar[str] = "relaxation"
    cause: ClassVar[str] = "drift"
    scope: ClassVar[Scope] = "programming"
    shift_siemens: float = field(metadata=about("Change of the mean for each e-fold of time."))
    spread_siemens: float = field(metadata=about("Standard deviation after a second.", at_least=0.0))
    widening_siemens: float = field(default=0.0, metadata=about("What each e-fold of time adds to the standard deviation.", at_least=0.0))
    low_siemens: float = field(default=0.0, metadata=about("Lowest conductance there is.", at_least=0.0))
    high_siemens: float | None = field(default=None, metadata=about("Highest conductance there is.", above=0.0, absent="any"))
    t_s: float = field(default=0.0, metadata=about("Time since programming: 0, or the second from which on it was fitted, and later."))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        if self.t_s != 0.0 and not self.t_s >= 1.0:
            raise SpecError(f"t_s: {self.t_s:g} s: need 0, or at least 1 s; the fit is over the logarithm of seconds")
        if self.high_siemens is not None and self.high_siemens <= self.low_siemens:
            raise SpecError(f"need low_siemens < high_siemens, got {self.low_siemens:g} S and {self.high_siemens:g} S")

    @property
    def log_time(self) -> float:
        """L of (1); 0 at the beginning, when there is no relaxation."""
        return float(np.log(self.t_s)) if self.t_s > 0.0 else 0.0

    @property
    def mean_shift_siemens(self) -> float:
        """Change of the mean, before limits."""
        return self.shift_siemens * self.log_time

    @property
    def std_siemens(self) -> float:
        """Standard deviation that is added, before limits."""
        return self.spread_siemens + self.widening_siemens * self.log_time if self.t_s > 0.0 else 0.0

    @property
    def _limits(self) -> tuple[float, float]:
        return self.low_siemens, np.inf if self.high_siemens is None else self.high_siemens

    def in_words(self) -> str:
        """Return what the law means at its time."""
        if self.t_s == 0.0:
            return "no relaxation: cell.drift.t_s is 0"
        shift, std, age = (
            format_quantity(value, unit, n_digits=3)
            for value, unit in ((self.mean_shift_siemens, "siemens"), (self.std_siemens, "siemens"), (self.t_s, "second"))
        )
        return f"{age} after programming; cells have moved by {shift} on average, and spread by {std}"

    def moments(self, target_siemens: Values, g_max_siemens: float) -> CellMoments:
        fixed = CellMoments(mean_siemens=target_siemens, variance_siemens2=np.zeros_like(target_siemens))
        return self.moments_after(fixed, g_max_siemens, asked_siemens=target_siemens)

    def moments_after(self, before: CellMoments, g_max_siemens: float, *, asked_siemens: Values) -> CellMoments:
        """Return the moments of a clipped Gaussian."""
        if self.t_s == 0.0:
            return before
        low, high = self._limits
        mean, variance, _ = clip_moments(
            np.asarray(before.mean_siemens + self.mean_shift_siemens, np.float64),
            np.asarray(before.variance_siemens2 + self.std_siemens**2, np.float64),
            low=low,
            high=high,
        )
        return CellMoments(mean_siemens=mean, variance_siemens2=variance)

    def sample(self, target_siemens: Values, g_max_siemens: float, *, normals: Values) -> Values:
        return self.sample_after(target_siemens, g_max_siemens, asked_siemens=target_siemens, normals=normals)

    def sample_after(self, stored_siemens: Values, g_max_siemens: float, *, asked_siemens: Values, normals: Values) -> Values:
        kind = normals.dtype
        if self.t_s == 0.0:
            return np.asarray(stored_siemens, kind)
        moved = np.asarray(stored_siemens, kind) + (kind.type(self.mean_shift_siemens) + kind.type(self.std_siemens) * normals)
        low, high = self._limits
        return np.minimum(np.maximum(moved, kind.type(low)), kind.type(high))

    def precompensated(self, target_siemens: Values, g_max_siemens: float) -> Values:
        """Raise SpecError: what comes later is not known when cells are written."""
        raise SpecError(f"mapping.precompensate: {self.kind}: it is made for errors of writing, not for what comes after; leave it false")

    def scales_with(self) -> Literal["state"]:
        return "state"
