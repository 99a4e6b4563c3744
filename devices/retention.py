"""Retention of stored charge: mean and spread of a cell by its state, at the times when they were measured.

    I(t) = m + s(m) z,   m = I + sum_k p_k(t) I^k,   s(m) = top(t) (1 - exp(-m / knee(t))),   z ~ N(0, 1),   at least zero     (1)

in units of a current as published for SONOS memory (Agrawal et al., IEDM 2022; coefficients in CrossSim's `SONOS.py`), which does not tell
errors of writing and retention apart: the law stands for both, from what was asked for. Between times, coefficients are interpolated
along straight lines, as there; nothing is said of later times.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from devices.base.errors import SpecError
from devices.base.quantity import format_quantity
from devices.base.toml_codec import about, check_types, raise_faults
from devices.law import CellLaw, CellMoments, Scope, Values
from devices.programming import clipped_moments


@dataclass(frozen=True, slots=True, kw_only=True)
class Retained:
    """The coefficients of (1) at one time."""

    name: str = field(default="", metadata=about("Its name.", coded=False))
    t_s: float = field(metadata=about("Time since programming.", at_least=0.0))
    shift: tuple[float, ...] = field(default=(0.0,), metadata=about("p_0, p_1, ... in units of the current."))
    top: float = field(metadata=about("Standard deviation far above the knee, in units of the current.", at_least=0.0))
    knee: float = field(metadata=about("Current over which it rises.", above=0.0))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionTable(CellLaw):
    """Law (1)."""

    kind: ClassVar[str] = "retention"
    cause: ClassVar[str] = "drift"
    scope: ClassVar[Scope] = "programming"
    unit_siemens: float = field(metadata=about("Conductance of a current of one.", above=0.0))
    limit: float = field(metadata=about("Current up to which the polynomials hold; beyond, the shift stays what it is there.", above=0.0))
    points: tuple[Retained, ...] = field(metadata=about("What was measured, each time under its name."))
    t_s: float = field(default=0.0, metadata=about("Time since programming.", at_least=0.0))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        times = [point.t_s for point in self.points]
        if not times or len(set(times)) < len(times):
            raise SpecError(f"points: need at least one, each at a time of its own, got {len(times)} at {times} s")
        if not min(times) <= self.t_s <= max(times):
            low, high = (format_quantity(t, "second", n_digits=4) for t in (min(times), max(times)))
            raise SpecError(f"t_s: {self.t_s:g} s: need a time from {low} to {high}: when it was measured")

    def _now(self) -> tuple[Values, float, float]:
        """Return the coefficients at the law's time: p_k, top and knee."""
        points = sorted(self.points, key=lambda point: point.t_s)
        times = [point.t_s for point in points]
        size = max(len(point.shift) for point in points)
        shifts = np.array([[*point.shift, *(0.0,) * (size - len(point.shift))] for point in points])
        shift = np.array([np.interp(self.t_s, times, column) for column in shifts.T])
        top, knee = (float(np.interp(self.t_s, times, [getattr(p, name) for p in points])) for name in ("top", "knee"))
        return shift, top, knee

    def mean_and_std(self, asked_siemens: Values) -> tuple[Values, Values]:
        """Return m and s of (1), siemens; before zero is held."""
        shift, top, knee = self._now()
        current = np.asarray(asked_siemens, np.float64) / self.unit_siemens
        mean = current + np.polynomial.polynomial.polyval(np.clip(current, 0.0, self.limit), shift)
        std = np.maximum(-top * np.expm1(-mean / knee), 0.0)
        return self.unit_siemens * mean, self.unit_siemens * std

    def in_words(self) -> str:
        """Return what the law means at its time."""
        top = np.full(1, self.limit * self.unit_siemens)
        mean, std = self.mean_and_std(top)
        high, moved, spread = (format_quantity(float(v[0]), "siemens", n_digits=3) for v in (top, mean - top, std))
        age = format_quantity(self.t_s, "second", n_digits=4)
        return f"{age} after programming; a cell at {high} has moved by {moved} on average, with a spread of {spread}"

    def moments(self, target_siemens: Values, g_max_siemens: float) -> CellMoments:
        mean, variance = clipped_moments(*self.mean_and_std(target_siemens))
        return CellMoments(mean_siemens=mean, variance_siemens2=variance)

    def sample(self, target_siemens: Values, g_max_siemens: float, *, normals: Values) -> Values:
        kind = normals.dtype
        mean, std = (part.astype(kind) for part in self.mean_and_std(target_siemens))
        return np.maximum(mean + std * normals, kind.type(0.0))

    def precompensated(self, target_siemens: Values, g_max_siemens: float) -> Values:
        """Raise SpecError: what comes later is not known when cells are written."""
        raise SpecError(f"mapping.precompensate: {self.kind}: it is made for errors of writing, not for what comes after; leave it false")

    def scales_with(self) -> Literal["state"]:
        return "state"
