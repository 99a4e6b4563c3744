"""Stuck cells: whatever is asked for, they hold the lowest or the highest conductance.

A cell is stuck low with probability p_l and high with p_h, once and for all; otherwise it holds what it would (mean m, variance v):

    E G = (1 - p_l - p_h) m + p_l g_l + p_h g_h,     E G^2 = (1 - p_l - p_h)(v + m^2) + p_l g_l^2 + p_h g_h^2        (1)

The law is sparse: two moments say little of a network's error while faults are few, so sketches and Monte-Carlo draw the faults.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from scipy.special import ndtri

from devices.base.errors import SpecError
from devices.base.toml_codec import about, check_types, raise_faults
from devices.law import CellEvents, CellLaw, CellMoments, Scope, Values


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckAt(CellLaw):
    """Cells stuck at a low or at a high conductance, each with its own probability."""

    kind: ClassVar[str] = "stuck_at"
    cause: ClassVar[str] = "stuck"
    scope: ClassVar[Scope] = "chip"
    low_p: float = field(metadata=about("Probability that a cell is stuck low.", at_least=0.0))
    high_p: float = field(metadata=about("Probability that a cell is stuck high.", at_least=0.0))
    low_siemens: float = field(metadata=about("Conductance of a cell that is stuck low.", at_least=0.0))
    high_siemens: float = field(metadata=about("Conductance of a cell that is stuck high.", at_least=0.0))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        if self.low_p + self.high_p > 1.0:
            raise SpecError(f"low_p + high_p: {self.low_p:g} + {self.high_p:g}: need at most 1 together")

    def moments(self, target_siemens: Values, g_max_siemens: float) -> CellMoments:
        before = CellMoments(mean_siemens=target_siemens, variance_siemens2=np.zeros_like(target_siemens))
        return self.moments_after(before, g_max_siemens, asked_siemens=target_siemens)

    def moments_after(self, before: CellMoments, g_max_siemens: float, *, asked_siemens: Values) -> CellMoments:
        """Return (1)."""
        well = 1.0 - self.low_p - self.high_p
        mean = well * before.mean_siemens + self.low_p * self.low_siemens + self.high_p * self.high_siemens
        about_mean = [  # of each of the three, about the common mean: no cancellation
            well * (before.variance_siemens2 + (before.mean_siemens - mean) ** 2),
            self.low_p * (self.low_siemens - mean) ** 2,
            self.high_p * (self.high_siemens - mean) ** 2,
        ]
        return CellMoments(mean_siemens=mean, variance_siemens2=sum(about_mean[1:], about_mean[0]))

    def sample(self, target_siemens: Values, g_max_siemens: float, *, normals: Values) -> Values:
        return self.sample_after(target_siemens, g_max_siemens, asked_siemens=target_siemens, normals=normals)

    def sample_after(self, stored_siemens: Values, g_max_siemens: float, *, asked_siemens: Values, normals: Values) -> Values:
        """Return stored values with the cells of the lowest normals stuck low, those of the highest stuck high: faults are nested."""
        stored = np.array(stored_siemens, normals.dtype)
        stored[normals < ndtri(self.low_p)] = self.low_siemens
        stored[normals > -ndtri(self.high_p)] = self.high_siemens
        return stored

    def precompensated(self, target_siemens: Values, g_max_siemens: float) -> Values:
        """Return the target over the share of cells that are not stuck, so that pairs keep their means."""
        well = 1.0 - self.low_p - self.high_p
        return target_siemens / well if well > 0.0 else target_siemens

    def scales_with(self) -> Literal["state"]:
        return "state"

    def events(self, target_siemens: Values) -> CellEvents:
        """Return the two events of each cell, along a new first axis."""
        shape = (2, *np.shape(target_siemens))
        values = np.array([self.low_siemens, self.high_siemens]).reshape(2, *(1,) * np.ndim(target_siemens))
        p = np.array([self.low_p, self.high_p]).reshape(values.shape)
        return CellEvents(p=np.broadcast_to(p, shape), value_siemens=np.broadcast_to(values, shape))


STUCK_LAWS: dict[str, type[StuckAt]] = {StuckAt.kind: StuckAt}
