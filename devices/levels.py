"""Multi-level storage: a cell holds one of a few levels, each with a mean and a standard deviation of its own as measured.

A target is rounded to the nearest mean; what is stored is Gaussian about it. Adjacent levels 1 and 2 are told apart at the threshold t
between their means where their densities meet,

    (t - m1)^2 / s1^2 + 2 ln s1 = (t - m2)^2 / s2^2 + 2 ln s2                                                  (1)

and a cell is misread with probability Q((t - m1)/s1) upwards, Q((m2 - t)/s2) downwards, Q the upper tail of N(0, 1).
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

from devices.base.errors import SpecError
from devices.base.toml_codec import about, check_types, raise_faults
from devices.law import CellMoments, Values
from devices.programming import GaussianError
from devices.state_dependent import StateDependentError

MAX_LEVELS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelError(StateDependentError):
    """The levels that a cell can hold, and how far each spreads, over cell.g_max_siemens.

    Levels need not be even: what a target is moved by to the nearest of them is an error of this law, not of `mapping.levels`.
    """

    kind: ClassVar[str] = "levels"
    means_rel: tuple[float, ...] = field(metadata=about("Mean of each level over cell.g_max_siemens, rising.", at_least=0.0))
    stds_rel: tuple[float, ...] = field(metadata=about("Standard deviation of each level over cell.g_max_siemens.", at_least=0.0))
    clip: bool = field(default=True, metadata=about("Whether a conductance that would be negative is zero instead."))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        n, m = len(self.means_rel), len(self.stds_rel)
        if n != m or not 2 <= n <= MAX_LEVELS:
            raise SpecError(f"stds_rel: need one for each of 2 to {MAX_LEVELS} means_rel, got {m} for {n}")
        if np.any(np.diff(self.means_rel) <= 0.0):
            raise SpecError("means_rel: need each above the one before; sort the levels")

    def nearest(self, target_siemens: Values, g_max_siemens: float) -> NDArray[np.intp]:
        """Return the index of the level nearest to each target; halfway goes up."""
        means = np.array(self.means_rel)
        return np.searchsorted(0.5 * (means[1:] + means[:-1]), np.asarray(target_siemens, np.float64) / g_max_siemens, side="right")

    def level_siemens(self, target_siemens: Values, g_max_siemens: float) -> Values:
        """Return the mean of the level nearest to each target, before clipping."""
        return g_max_siemens * np.array(self.means_rel)[self.nearest(target_siemens, g_max_siemens)]

    def std_siemens(self, target_siemens: Values, g_max_siemens: float) -> Values:
        return g_max_siemens * np.array(self.stds_rel)[self.nearest(target_siemens, g_max_siemens)]

    def moments(self, target_siemens: Values, g_max_siemens: float) -> CellMoments:
        return GaussianError.moments(self, self.level_siemens(target_siemens, g_max_siemens), g_max_siemens)

    def sample(self, target_siemens: Values, g_max_siemens: float, *, normals: Values) -> Values:
        return GaussianError.sample(self, self.level_siemens(target_siemens, g_max_siemens), g_max_siemens, normals=normals)

    def scaled(self, factor: float) -> Self:
        return replace(self, stds_rel=tuple(factor * s for s in self.stds_rel))

    def precompensated(self, target_siemens: Values, g_max_siemens: float) -> Values:
        """Refuse: only levels can be stored, so a target cannot be moved a little."""
        raise SpecError("mapping.precompensate: levels cannot be moved a little, they are what they are; leave it false")

    def adjacent_error_p(self) -> tuple[Values, Values]:
        """Return the probabilities that a cell is read one level up, and one down, for each pair of neighbours: `(n_levels - 1,)` each."""
        pairs = list(zip(self.means_rel, self.means_rel[1:], self.stds_rel, self.stds_rel[1:]))
        thresholds = np.array([threshold(m1, m2, s1, s2) for m1, m2, s1, s2 in pairs])
        means, stds = np.array(self.means_rel), np.array(self.stds_rel)
        return ndtr(_ratio(means[:-1] - thresholds, stds[:-1])), ndtr(_ratio(thresholds - means[1:], stds[1:]))

    def cell_error_p(self) -> float:
        """Return the probability that a cell is misread as a neighbour, levels being equally likely."""
        up, down = self.adjacent_error_p()
        return float((up.sum() + down.sum()) / len(self.means_rel))


def threshold(mean_low: float, mean_high: float, std_low: float, std_high: float) -> float:
    """Return t of (1), between two means; next to a mean where the other level's density is above its own even there."""
    if std_low == 0.0 or std_high == 0.0:
        return mean_high if std_low > 0.0 else mean_low if std_high > 0.0 else 0.5 * (mean_low + mean_high)

    def excess(t: float) -> float:
        low, high = (t - mean_low) / std_low, (t - mean_high) / std_high
        return float(low**2 - high**2 + 2.0 * np.log(std_low / std_high))

    if excess(mean_low) >= 0.0:
        return mean_low
    if excess(mean_high) <= 0.0:
        return mean_high
    return float(brentq(excess, mean_low, mean_high, xtol=1e-15, rtol=1e-14))


def _ratio(distance: Values, std: Values) -> Values:
    return np.divide(distance, std, out=np.full_like(distance, -np.inf), where=std > 0.0)
