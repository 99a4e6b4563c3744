"""The whole trade-off between error and power, by a sweep of lambda = -dMSE/dP."""

from dataclasses import dataclass

import numpy as np

from accelsim.optimizer.closed_form import extremes, minimize_lagrangian, release_rates
from accelsim.optimizer.problem import Matrix, Problem, Vector
from devices.base.errors import SpecError

_SPAN = 1e-8  # smallest rate over the largest, where bias ends the trade-off inside the bounds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParetoCurve:
    """Optimal designs from least power to least MSE.

    Parameters
    ----------
    power_w
        Rising, (n,).
    mse
        Falling, (n,).
    mse_per_watt
        lambda of each design, falling, (n,).
    c_siemens
        The designs, (n, K).
    """

    power_w: Vector
    mse: Vector
    mse_per_watt: Vector
    c_siemens: Matrix

    def __post_init__(self) -> None:
        for array in (self.power_w, self.mse, self.mse_per_watt, self.c_siemens):
            array.setflags(write=False)


def pareto(problem: Problem, n_points: int = 41, *, around: float | None = None) -> ParetoCurve:
    """Sweep lambda geometrically from where all costly groups are at c_min to where none is paid for.

    The sweep ends at the rate below which no group moves any more, so both ends of the curve are the ends of the trade-off.
    With `around`, a rate of interest (that of a chosen design), it spans three decades on either side of it instead: a factor
    of about ten in every scale.
    With bias the MSE can be least inside the bounds, where that rate is 0: the sweep then ends at 1e-8 of the largest rate.
    """
    if n_points < 2:
        raise SpecError(f"need n_points >= 2, got {n_points}")
    ends = extremes(problem)
    largest = ends.largest_mse_per_watt
    if largest == 0.0:
        raise SpecError("no group trades error for power (A = 0 and no bias, or B = D = 0 throughout): there is no curve")
    smallest = _smallest_rate(problem, ends.least_mse.c_siemens, largest=largest)
    if around is not None and 0.0 < around < np.inf:
        largest, smallest = min(largest, 1e3 * around), 1e-3 * around if not problem.bias.is_constant else max(smallest, 1e-3 * around)
    rates = np.geomspace(largest, smallest, n_points)
    designs = np.empty((n_points, problem.n_groups))
    coupling = ends.least_power.coupling
    for i, rate in enumerate(rates):
        point = minimize_lagrangian(problem, float(rate), coupling=coupling)
        designs[i], coupling = point.c_siemens, point.coupling
    return ParetoCurve(power_w=problem.power_w(designs), mse=problem.mse(designs), mse_per_watt=rates, c_siemens=designs)


def _smallest_rate(problem: Problem, least_mse_siemens: Vector, *, largest: float) -> float:
    """The rate below which nothing moves any more; where bias ends the trade-off inside the bounds at least 1e-8 of the largest."""
    rates = release_rates(problem, least_mse_siemens)
    rates = rates[np.isfinite(rates) & (least_mse_siemens > problem.c_min_siemens)]
    smallest = float(rates.min(initial=largest)) * (1.0 - 1e-12)
    ends_at_bounds = problem.bias.is_constant or bool(np.all(least_mse_siemens >= problem.c_max_siemens))
    return smallest if ends_at_bounds and smallest > 0.0 else max(_SPAN * largest, smallest)
