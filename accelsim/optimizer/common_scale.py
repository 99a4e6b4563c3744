"""The best scale that all columns share: what layers and columns are compared with, and an answer of its own."""

from dataclasses import dataclass

import numpy as np

from accelsim.optimizer.closed_form import best_common_scale
from accelsim.optimizer.coefficients import Coefficients
from accelsim.optimizer.problem import CommonScale, Infeasible, Problem
from devices.base.errors import SpecError
from workloads.operators.base import Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CommonSolution:
    """The best common scale as an answer of its own (`per="network"`): one number, found exactly, so no gap."""

    c_siemens: Array
    mse: float
    power_w: float
    multiplier: float
    mse_per_watt: float
    duality_gap_rel: float
    active_lower: Array
    active_upper: Array


def common_solution(terms: Coefficients, budgets: tuple[float | None, float | None]) -> CommonSolution | Infeasible:
    """Return the best common scale within (power, error) budgets, one of which is None."""
    relative = 1.0 / terms.w_max[terms.active]
    power, mse = budgets
    found = (
        best_common_scale(terms.problem, relative, power_budget_w=power)
        if power is not None
        else best_common_scale(terms.problem, relative, mse_budget=mse)
    )
    if isinstance(found, Infeasible):
        return found
    nudged = found.c_siemens * (1.0 - 1e-6)
    slope = (float(terms.problem.mse(nudged)) - found.mse) / max(found.power_w - float(terms.problem.power_w(nudged)), 1e-300)
    none = np.zeros(len(relative), bool)
    return CommonSolution(
        c_siemens=found.c_siemens,
        mse=found.mse,
        power_w=found.power_w,
        mse_per_watt=slope,
        multiplier=slope if power is not None else 1.0 / max(slope, 1e-300),
        duality_gap_rel=0.0,
        active_lower=none,
        active_upper=found.c_siemens >= terms.problem.c_max_siemens * (1 - 1e-12),
    )


def common_scale_within(problem: Problem, relative: Array, *, power: float | None, mse: float | None) -> CommonScale | None:
    """Return the best common scale of columns with `relative` scales within one budget; None where there is none."""
    if not problem.n_groups:
        return None
    try:
        found = (
            best_common_scale(problem, relative, power_budget_w=power)
            if power is not None
            else best_common_scale(problem, relative, mse_budget=mse)
        )
    except SpecError:
        return None
    return None if isinstance(found, Infeasible) else found
