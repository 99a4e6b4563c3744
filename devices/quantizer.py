"""Levels: a cell that can only be asked for N conductances, evenly spaced over the range in use.

    step = span / (N - 1),   Q(g) = step * round(g / step)        nearest, ties to even              (1)
    step = span / N,         Q(g) = step * floor(g / step)        floor: the published MemSE code    (2)

(2) is biased and costs 4x to 85x more mean squared error than (1); it exists to reproduce published numbers.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from devices.base.errors import SpecError
from devices.law import Values


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelQuantizer:
    """N levels over 0..span of a single device.

    Parameters
    ----------
    levels
        Number of levels, at least 2.
    rounding
        `nearest` (1) or `floor` (2).
    """

    levels: int
    rounding: Literal["nearest", "floor"] = "nearest"

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise SpecError(f"need levels >= 2, got {self.levels}; leave levels out for analog storage")

    def apply(self, offset_siemens: Values, span_siemens: Values | float) -> Values:
        """Return the stored offsets above g_min, for offsets in 0..span (broadcast against them)."""
        if self.rounding == "floor":
            step = span_siemens / self.levels
            return np.floor(_ratio(offset_siemens, step)) * step
        step = span_siemens / (self.levels - 1)
        return np.rint(_ratio(offset_siemens, step)) * step


def _ratio(value: Values, step: Values | float) -> Values:
    return np.divide(value, step, out=np.zeros_like(value), where=np.broadcast_to(np.asarray(step) > 0.0, value.shape))
