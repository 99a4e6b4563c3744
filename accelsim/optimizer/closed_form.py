"""Least power at a given error, and least error at a given power, by the Lagrangian dual.

For a rate lambda = -dMSE/dP the separable minimum over u = 1/c of

    A u^2 + h u + lambda (B / u + D / u^2)                                         (1)

is at the one positive root c of   2 lambda D c^4 + lambda B c^3 - h c - 2 A = 0,   (2)

clipped to its bounds. Biases couple the groups; ||F u||^2 = max_y 2 y.F u - ||y||^2 makes them separable again with
h = 2 l + 2 F'y, and leaves the concave dual in the R numbers y

    phi(y) = q2 - ||y||^2 + lambda P0 + sum_k min_u (1),   grad phi / 2 = F u(y) - y,   L(u(y)) - phi(y) = ||F u(y) - y||^2.   (3)

Newton's matrix is I + 2 F W F', W = diag(1 / curvature of (1)) on the groups within their bounds, else 0. An outer Newton
search in log(lambda), inside a bracket, meets the budget. Without bias, D and active bounds all of it is closed:

    c_k = sqrt(S/M) (A_k/B_k)^(1/3),   S = sum A^(1/3) B^(2/3),   P - P0 = S^(3/2) / sqrt(M),   M = MSE - q2.                  (4)
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from accelsim.optimizer.problem import CommonScale, Infeasible, Matrix, Problem, Side, Solution, Vector
from devices.base.errors import SpecError

_EPS = float(np.finfo(float).eps)
_MAX_ROOT_STEPS = 100  # (2) is convex and starts within a factor of a few of its root: about 6 are needed
_MAX_NEWTON_STEPS = 200
_MAX_RATES = 300
_ROOT_STEP_REL = 1e-8  # Newton's last step on (2); p''/p' <= 4/c there, so the error left is below 2 * 1e-16 relative
_BUDGET_REL = 1e-13
_LOG_STRIDE = math.log(1e3)  # how far down to look for a rate while the bracket is open below


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LagrangianMinimum:
    """The minimum over the bounds of L = MSE + lambda P, and what (3) says about it.

    Parameters
    ----------
    mse_per_watt
        lambda.
    c_siemens
        u(y) = 1/c, (K,).
    coupling
        y, (R,).
    residual
        F u - y, (R,).
    dual
        phi(y) <= min L, in units of MSE.
    n_evaluations
        Evaluations of u(y).
    """

    mse_per_watt: float
    c_siemens: Vector
    coupling: Vector
    residual: Vector
    dual: float
    n_evaluations: int


class _Slope(NamedTuple):
    power_w: float  # -dP/dlambda >= 0
    coupling: Vector  # dy/dlambda


def stationary_scales(problem: Problem, mse_per_watt: float, *, pull_siemens: Vector) -> Vector:
    """Solve (2) for every group by Newton's method from above and clip to the bounds, (K,).

    The polynomial p is convex on c > 0 with p(0) <= 0, so where p > 0 the steps go down and never pass the root.
    `pull_siemens` is h, (K,), of any sign. A group with A = 0 and h <= 0 sits at c_min; with B = D = 0 and h >= 0 at c_max.
    """
    a = 2.0 * problem.variance_siemens2
    b = mse_per_watt * problem.linear_w_per_siemens
    d = 2.0 * mse_per_watt * problem.square
    h, low = pull_siemens, problem.c_min_siemens
    c = np.clip(_above_root(a, b, d=d, h=h), low, problem.c_max_siemens)
    for _ in range(_MAX_ROOT_STEPS):
        c2 = c * c
        value = ((d * c + b) * c2 - h) * c - a
        slope = (4.0 * d * c + 3.0 * b) * c2 - h
        down = np.divide(value, slope, out=np.zeros_like(c), where=value > 0.0)
        down = np.minimum(down, c - low)
        c = c - down
        if (down <= _ROOT_STEP_REL * c).all():
            return c
    raise ArithmeticError(f"{int((down > _ROOT_STEP_REL * c).sum())} scale factors unsettled after {_MAX_ROOT_STEPS} Newton steps")


def _above_root(a: Vector, b: Vector, *, d: Vector, h: Vector) -> Vector:
    """A point at or above the root of d c^4 + b c^3 - h c - a: each power alone outweighs half of the rest there; infinite if none does."""
    pull = np.maximum(h, 0.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        by_b = np.maximum(np.cbrt(2.0 * a / b), np.sqrt(2.0 * pull / b))
        by_d = np.maximum(np.sqrt(np.sqrt(2.0 * a / d)), np.cbrt(2.0 * pull / d))
        by_h = np.where(h < 0.0, a / -h, np.inf)
    above = np.fmin(np.fmin(by_b, by_d), by_h)
    return np.where((a == 0.0) & (h <= 0.0), 0.0, np.where(np.isnan(above), np.inf, above))


def _at_coupling(problem: Problem, mse_per_watt: float, *, coupling: Vector, n_evaluations: int) -> LagrangianMinimum:
    """Evaluate u(y) and phi(y) of (3)."""
    h = np.zeros(problem.n_groups)
    if problem.bias.linear_siemens is not None:
        h = h + 2.0 * problem.bias.linear_siemens
    if problem.bias.factor_siemens is not None:
        h = h + 2.0 * (coupling @ problem.bias.factor_siemens)
    c = stationary_scales(problem, mse_per_watt, pull_siemens=h)
    u = 1.0 / c
    separable = float(((problem.variance_siemens2 * u + h) * u).sum())
    dual = problem.bias.q2 - float(coupling @ coupling) + separable + mse_per_watt * float(problem.power_w(c))
    residual = coupling if problem.bias.factor_siemens is None else problem.bias.factor_siemens @ u - coupling
    return LagrangianMinimum(
        mse_per_watt=mse_per_watt, c_siemens=c, coupling=coupling, residual=residual, dual=dual, n_evaluations=n_evaluations
    )


def _free_compliance(problem: Problem, point: LagrangianMinimum) -> Vector:
    """W: one over the second derivative of (1) for groups within their bounds, else 0, (K,)."""
    c, rate = point.c_siemens, point.mse_per_watt
    curvature = 2.0 * problem.variance_siemens2 + rate * (2.0 * problem.linear_w_per_siemens + 6.0 * problem.square * c) * c**3
    free = (c > problem.c_min_siemens) & (c < problem.c_max_siemens)
    return np.divide(1.0, curvature, out=np.zeros_like(c), where=free)


def _newton_matrix(factor: Matrix, compliance: Vector) -> Matrix:
    """I + 2 F W F', (R, R)."""
    scaled = factor * np.sqrt(2.0 * compliance)
    matrix = scaled @ scaled.T
    matrix[np.diag_indices_from(matrix)] += 1.0
    return matrix


def minimize_lagrangian(problem: Problem, mse_per_watt: float, *, coupling: Vector | None = None) -> LagrangianMinimum:
    """Minimise MSE + lambda P within the bounds: damped Newton on the dual (3) from `coupling` (y, by default 0).

    Raises ArithmeticError, with the residual, where Newton's method does not converge.
    """
    factor = problem.bias.factor_siemens
    n_rank = 0 if factor is None else len(factor)
    start = np.zeros(n_rank) if coupling is None else coupling
    point = _at_coupling(problem, mse_per_watt, coupling=start, n_evaluations=1)
    if factor is None:
        return point
    size = np.abs(factor)
    for _ in range(_MAX_NEWTON_STEPS):
        rounding = 8.0 * _EPS * float(np.linalg.norm(size @ (1.0 / point.c_siemens)))
        error = float(np.linalg.norm(point.residual))
        if error <= rounding:
            return point
        matrix = _newton_matrix(factor, _free_compliance(problem, point))
        step = cho_solve(cho_factor(matrix, check_finite=False), point.residual, check_finite=False)
        further = _ascend(problem, point, step=step)
        if float(np.linalg.norm(further.residual)) >= 0.5 * error and error <= 1e4 * rounding:
            return replace(point, n_evaluations=further.n_evaluations)
        point = further
    raise ArithmeticError(f"dual residual {error:g} is above its rounding error {rounding:g} after {_MAX_NEWTON_STEPS} Newton steps")


def _ascend(problem: Problem, point: LagrangianMinimum, *, step: Vector) -> LagrangianMinimum:
    """Take the whole step if it raises phi as it should or halves the residual, else the highest point along it.

    phi is concave along the step with derivative 2 step.residual, whose sign is bisected until it has lost nine tenths.
    """
    uphill = float(point.residual @ step)
    error = float(np.linalg.norm(point.residual))
    low, high, length = 0.0, 1.0, 1.0
    trial, best = point, point
    for _ in range(40):
        trial = _at_coupling(
            problem, point.mse_per_watt, coupling=point.coupling + length * step, n_evaluations=trial.n_evaluations + 1
        )
        if length == 1.0 and (
            trial.dual >= point.dual + 0.5 * uphill or float(np.linalg.norm(trial.residual)) <= 0.5 * error
        ):
            return trial
        best = trial if trial.dual >= best.dual else best
        left = float(trial.residual @ step)
        if abs(left) <= 0.1 * uphill:
            return trial
        low, high = (length, high) if left > 0.0 else (low, length)
        length = 0.5 * (low + high)
    return replace(best, n_evaluations=trial.n_evaluations)


def _slope(problem: Problem, point: LagrangianMinimum) -> _Slope:
    """-dP/dlambda = v'(H^-1)v and dy/dlambda, with v = dP/du and H = W^-1 + 2 F'F on the free groups, by Woodbury's identity.

    Along the trade-off dMSE/dlambda = -lambda dP/dlambda.
    """
    c = point.c_siemens
    v = -(problem.linear_w_per_siemens + 2.0 * problem.square * c) * c * c
    compliance = _free_compliance(problem, point)
    total = float(v @ (compliance * v))
    factor = problem.bias.factor_siemens
    if factor is None:
        return _Slope(total, np.zeros(0))
    force = factor @ (compliance * v)
    answer = cho_solve(cho_factor(_newton_matrix(factor, compliance), check_finite=False), force, check_finite=False)
    return _Slope(total - 2.0 * float(force @ answer), -answer)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Extremes:
    """Both ends of the trade-off, and the rate from which on power is at its least.

    Parameters
    ----------
    least_mse
        Minimum of the MSE alone (lambda = 0); at c_max without bias.
    least_power
        Every group that costs power at c_min, the others at their least MSE.
    largest_mse_per_watt
        For this lambda and all above, L is least at `least_power`; 0 if no group costs power.
    """

    least_mse: LagrangianMinimum
    least_power: LagrangianMinimum
    largest_mse_per_watt: float


def release_rates(problem: Problem, c_siemens: Vector) -> Vector:
    """The lambda that makes c_k stationary, (2 A + h c) / (B c^3 + 2 D c^4), with the h of design c, (K,); NaN where B = D = 0."""
    u = 1.0 / c_siemens
    h = np.zeros(problem.n_groups)
    if problem.bias.linear_siemens is not None:
        h = h + 2.0 * problem.bias.linear_siemens
    if problem.bias.factor_siemens is not None:
        h = h + 2.0 * ((problem.bias.factor_siemens @ u) @ problem.bias.factor_siemens)
    price = (problem.linear_w_per_siemens + 2.0 * problem.square * c_siemens) * c_siemens**3
    return np.divide(2.0 * problem.variance_siemens2 + h * c_siemens, price, out=np.full(problem.n_groups, np.nan), where=price > 0.0)


def extremes(problem: Problem) -> Extremes:
    """Find both ends of the trade-off.

    Raises SpecError where the MSE goes below zero: no q and b have such a bias model.
    A biased group without variance makes the minimum at lambda = 0 degenerate: it is then taken at 1e-12 of the largest rate.
    """
    pinned = replace(problem, c_max_siemens=np.where(problem.costly, problem.c_min_siemens, problem.c_max_siemens))
    least_power = minimize_lagrangian(pinned, 0.0)
    rates = release_rates(problem, least_power.c_siemens)
    largest = max(0.0, float(np.nanmax(rates, initial=0.0))) * (1.0 + 1e-12)
    degenerate = problem.bias.biased(problem.n_groups) & (problem.variance_siemens2 == 0.0)
    least_mse = minimize_lagrangian(problem, 1e-12 * largest if degenerate.any() else 0.0, coupling=least_power.coupling)
    floor = float(problem.mse(least_mse.c_siemens))
    if floor < 0.0:
        raise SpecError(f"need q2 + 2 l.u + ||F u||^2 >= 0, got an MSE of {floor:g}; take q2, l and F from the same samples")
    return Extremes(least_mse=least_mse, least_power=least_power, largest_mse_per_watt=largest)


def minimize_power(problem: Problem, mse_budget: float) -> Solution | Infeasible:
    """Find the design of least power whose MSE is at most `mse_budget`."""
    _check_budget(mse_budget, name="mse_budget")
    closed = _closed_form(problem, mse_budget - problem.bias.q2)
    if closed is not None:
        return _certified(problem, closed, objective="power", budget=mse_budget)
    ends = extremes(problem)
    floor = float(problem.mse(ends.least_mse.c_siemens))
    if floor > mse_budget * (1.0 + 4.0 * _EPS):
        return Infeasible(at="mse", floor=floor, budget=mse_budget)
    if problem.mse(ends.least_power.c_siemens) <= mse_budget * (1.0 + 4.0 * _EPS):
        return _slack(problem, ends.least_power, objective="power")
    base = problem.bias.q2 if problem.bias.is_constant else floor
    point = _meet_budget(problem, ends, budget=_Budget("mse", mse_budget, base))
    return _certified(problem, point, objective="power", budget=mse_budget)


def minimize_mse(problem: Problem, power_budget_w: float) -> Solution | Infeasible:
    """Find the design of least MSE whose power is at most `power_budget_w`."""
    _check_budget(power_budget_w, name="power_budget_w")
    cubes = _cubes(problem)
    controllable = power_budget_w - problem.p0_w
    closed = _closed_form(problem, cubes**3 / controllable**2) if controllable > 0.0 else None
    if closed is not None:
        return _certified(problem, closed, objective="mse", budget=power_budget_w)
    ends = extremes(problem)
    floor_w = float(problem.power_w(ends.least_power.c_siemens))
    if floor_w > power_budget_w * (1.0 + 4.0 * _EPS):
        return Infeasible(at="power", floor=floor_w, budget=power_budget_w)
    if problem.power_w(ends.least_mse.c_siemens) <= power_budget_w * (1.0 + 4.0 * _EPS):
        return _slack(problem, ends.least_mse, objective="mse")
    point = _meet_budget(problem, ends, budget=_Budget("power", power_budget_w, problem.p0_w))
    return _certified(problem, point, objective="mse", budget=power_budget_w)


def _check_budget(value: float, *, name: str) -> None:
    if not (math.isfinite(value) and value > 0.0):
        raise SpecError(f"need finite {name} > 0, got {value:g}; raise the budget")


def _cubes(problem: Problem) -> float:
    """S = sum_k A_k^(1/3) B_k^(2/3)."""
    return float((np.cbrt(problem.variance_siemens2) * np.cbrt(problem.linear_w_per_siemens) ** 2).sum())


def _closed_form(problem: Problem, mse_excess: float) -> LagrangianMinimum | None:
    """The design (4) with lambda = 2 (M/S)^(3/2); None where it does not hold (bias, D, an active bound, no excess)."""
    if not problem.n_groups or not problem.bias.is_constant or problem.square.any() or not mse_excess > 0.0:
        return None
    if not problem.linear_w_per_siemens.all():
        return None
    cubes = _cubes(problem)
    c = math.sqrt(cubes / mse_excess) * np.cbrt(problem.variance_siemens2 / problem.linear_w_per_siemens)
    if not ((c >= problem.c_min_siemens) & (c <= problem.c_max_siemens)).all():
        return None
    rate = 2.0 * (mse_excess / cubes) ** 1.5
    dual = problem.bias.q2 + float((problem.variance_siemens2 / c**2).sum()) + rate * float(problem.power_w(c))
    return LagrangianMinimum(mse_per_watt=rate, c_siemens=c, coupling=np.zeros(0), residual=np.zeros(0), dual=dual, n_evaluations=0)


class _Budget(NamedTuple):
    side: Side
    value: float
    base: float  # what no rate moves below: the search is in log(value - base)

    def excess(self, problem: Problem, point: LagrangianMinimum) -> float:
        """Value at the point, less the base."""
        if self.side == "power":
            return float(problem.controllable_w(point.c_siemens))
        return float(problem.mse_excess(point.c_siemens)) + (problem.bias.q2 - self.base)


def _meet_budget(problem: Problem, ends: Extremes, *, budget: _Budget) -> LagrangianMinimum:
    """Find the lambda whose minimum spends the budget: Newton in log(lambda), else bisection of the bracket.

    The excess over the base is close to a power of lambda (2/3 for MSE, -1/3 for power), so log against log is close to a line.
    """
    sign = 1.0 if budget.side == "mse" else -1.0  # MSE rises with lambda, power falls
    target = budget.value - budget.base
    tolerance = _BUDGET_REL * target + 4.0 * _EPS * budget.value
    high = math.log(ends.largest_mse_per_watt)
    low = -math.inf
    x = min(_first_guess(problem, budget, fallback=high - _LOG_STRIDE), high)
    coupling, n_evaluations = ends.least_power.coupling, ends.least_power.n_evaluations + ends.least_mse.n_evaluations
    for _ in range(_MAX_RATES):
        rate = math.exp(x)
        point = minimize_lagrangian(problem, rate, coupling=coupling)
        n_evaluations += point.n_evaluations
        excess = budget.excess(problem, point)
        if abs(excess - target) <= tolerance or high - low <= 4.0 * _EPS * max(1.0, abs(high)):
            return replace(point, n_evaluations=n_evaluations)
        low, high = (x, high) if sign * (excess - target) < 0.0 else (low, x)
        slope = _slope(problem, point)
        onward = _newton_rate(x, excess, target=target, slope=rate * slope.power_w * (rate if sign > 0.0 else -1.0))
        bounded = onward if low < onward < high else _inside(low, high)
        coupling = point.coupling + slope.coupling * (math.exp(bounded) - rate) if abs(bounded - x) < 1.0 else point.coupling
        x = bounded
    raise ArithmeticError(f"{budget.side} budget {budget.value:g} missed by {excess - target:g} after {_MAX_RATES} rates")


def _newton_rate(x: float, excess: float, *, target: float, slope: float) -> float:
    """Newton's next log(lambda) for log(excess) = log(target), slope = d excess / d log(lambda); NaN where it has none."""
    if slope == 0.0 or excess <= 0.0 or target <= 0.0:
        return math.nan
    return x - math.log(excess / target) * excess / slope


def _inside(low: float, high: float) -> float:
    return high - _LOG_STRIDE if math.isinf(low) else 0.5 * (low + high)


def _first_guess(problem: Problem, budget: _Budget, *, fallback: float) -> float:
    """log(lambda) of the closed form (4), bounds, bias and D ignored."""
    cubes = _cubes(problem)
    spendable = budget.value - (problem.bias.q2 if budget.side == "mse" else problem.p0_w)
    if cubes <= 0.0 or spendable <= 0.0:
        return fallback
    return math.log(2.0) + (1.5 * math.log(spendable / cubes) if budget.side == "mse" else 3.0 * math.log(cubes / spendable))


def _certified(problem: Problem, point: LagrangianMinimum, *, objective: Side, budget: float) -> Solution:
    """Bound the objective by the dual: (phi - MSE budget) / lambda for power, phi - lambda P budget for MSE."""
    rate = point.mse_per_watt
    mse, power_w = float(problem.mse(point.c_siemens)), float(problem.power_w(point.c_siemens))
    if objective == "power":
        bound, value, scale = (point.dual - budget) / rate, power_w, power_w - problem.p0_w
    else:
        bound, value, scale = point.dual - rate * budget, mse, mse
    return Solution(
        objective=objective,
        c_siemens=point.c_siemens,
        mse=mse,
        power_w=power_w,
        multiplier=1.0 / rate if objective == "power" else rate,
        mse_per_watt=rate,
        lower_bound=bound,
        duality_gap_rel=(value - bound) / scale,
        active_lower=point.c_siemens <= problem.c_min_siemens,
        active_upper=point.c_siemens >= problem.c_max_siemens,
        slack=False,
        n_iterations=point.n_evaluations,
    )


def _slack(problem: Problem, point: LagrangianMinimum, *, objective: Side) -> Solution:
    """The optimum without the budget, which it meets: the budget's price is 0."""
    mse, power_w = float(problem.mse(point.c_siemens)), float(problem.power_w(point.c_siemens))
    if objective == "power":
        value, bound = power_w, float(problem.power_w(problem.c_min_siemens))
    else:
        value, bound = mse, point.dual - point.mse_per_watt * float(problem.power_w(problem.c_max_siemens))
    return Solution(
        objective=objective,
        c_siemens=point.c_siemens,
        mse=mse,
        power_w=power_w,
        multiplier=0.0,
        mse_per_watt=math.inf if objective == "power" else 0.0,
        lower_bound=bound,
        duality_gap_rel=(value - bound) / value if value > 0.0 else 0.0,
        active_lower=point.c_siemens <= problem.c_min_siemens,
        active_upper=point.c_siemens >= problem.c_max_siemens,
        slack=True,
        n_iterations=point.n_evaluations,
    )


def best_common_scale(
    problem: Problem, relative_scales: Vector, *, mse_budget: float | None = None, power_budget_w: float | None = None
) -> CommonScale | Infeasible:
    """Find the best t with c_k = t r_k and every c_k within its bounds, under one of the two budgets.

    With s = 1/t:  MSE = q2 + 2 b s + a s^2  and  P = P0 + beta t + delta t^2; both budgets are quadratic equations.

    Raises SpecError unless exactly one budget is given, all r_k > 0, and some t keeps every group within its bounds.
    """
    r = np.array(relative_scales, dtype=np.float64)
    if r.shape != (problem.n_groups,) or not (np.isfinite(r) & (r > 0.0)).all():
        raise SpecError(f"need {problem.n_groups} finite relative_scales > 0, got shape {r.shape}, least {r.min(initial=np.inf):g}")
    t_low, t_high = float((problem.c_min_siemens / r).max()), float((problem.c_max_siemens / r).min())
    if t_low > t_high:
        raise SpecError(f"no common scale: c_min needs t >= {t_low:g} S, c_max needs t <= {t_high:g} S; widen the bounds")
    if mse_budget is not None and power_budget_w is None:
        _check_budget(mse_budget, name="mse_budget")
        return _common_least_power(problem, r, mse_budget=mse_budget, t_low=t_low, t_high=t_high)
    if power_budget_w is not None and mse_budget is None:
        _check_budget(power_budget_w, name="power_budget_w")
        return _common_least_mse(problem, r, power_budget_w=power_budget_w, t_low=t_low, t_high=t_high)
    raise SpecError(f"need exactly one budget, got mse_budget {mse_budget} and power_budget_w {power_budget_w}")


def _common_quadratic(problem: Problem, r: Vector) -> tuple[float, float]:
    """a and b of MSE = q2 + 2 b s + a s^2 for u = s / r."""
    linear = problem.bias.linear_siemens
    b = 0.0 if linear is None else float((linear / r).sum())
    return float(problem.mse_excess(r)) - 2.0 * b, b


def _common(problem: Problem, r: Vector, *, scale_siemens: float) -> CommonScale:
    c = np.clip(scale_siemens * r, problem.c_min_siemens, problem.c_max_siemens)  # rounding only: t is within its limits
    return CommonScale(scale_siemens=scale_siemens, c_siemens=c, mse=float(problem.mse(c)), power_w=float(problem.power_w(c)))


def _least_mse_inverse(a: float, b: float, *, s_low: float, s_high: float) -> float:
    """The s in its limits of least 2 b s + a s^2, a >= 0."""
    if a > 0.0:
        return min(max(-b / a, s_low), s_high)
    return s_low if b >= 0.0 else s_high


def _common_least_power(problem: Problem, r: Vector, *, mse_budget: float, t_low: float, t_high: float) -> CommonScale | Infeasible:
    """The largest s = 1/t that meets the budget."""
    a, b = _common_quadratic(problem, r)
    best = _common(problem, r, scale_siemens=1.0 / _least_mse_inverse(a, b, s_low=1.0 / t_high, s_high=1.0 / t_low))
    if best.mse > mse_budget * (1.0 + 4.0 * _EPS):
        return Infeasible(at="mse", floor=best.mse, budget=mse_budget)
    loosest = _common(problem, r, scale_siemens=t_low)
    if loosest.mse <= mse_budget:
        return loosest
    excess = mse_budget - problem.bias.q2
    root = math.sqrt(max(b * b + a * excess, 0.0))
    s = (root - b) / a if b <= 0.0 else excess / (root + b)
    wanted = 1.0 / s if s > 0.0 else math.inf  # a budget at the floor asks for more than any scale
    return _common(problem, r, scale_siemens=min(max(wanted, t_low), best.scale_siemens))


def _common_least_mse(problem: Problem, r: Vector, *, power_budget_w: float, t_low: float, t_high: float) -> CommonScale | Infeasible:
    """The s of least MSE among those whose power is within the budget."""
    least = _common(problem, r, scale_siemens=t_low)
    if least.power_w > power_budget_w * (1.0 + 4.0 * _EPS):
        return Infeasible(at="power", floor=least.power_w, budget=power_budget_w)
    a, b = _common_quadratic(problem, r)
    beta, delta = float(problem.linear_w_per_siemens @ r), float(problem.square @ r**2)
    budget = power_budget_w - problem.p0_w
    root = math.sqrt(beta * beta + 4.0 * delta * budget)
    affordable = 2.0 * budget / (root + beta) if root + beta > 0.0 else t_high
    t_high = min(max(affordable, t_low), t_high)
    return _common(problem, r, scale_siemens=1.0 / _least_mse_inverse(a, b, s_low=1.0 / t_high, s_high=1.0 / t_low))
