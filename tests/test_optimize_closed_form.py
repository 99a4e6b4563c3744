"""The optimum of power and error against SciPy, random and genetic search, its own certificate, and limits known by hand."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from accelsim.optimizer.closed_form import best_common_scale, extremes, minimize_lagrangian, minimize_mse, minimize_power
from accelsim.optimizer.pareto import pareto
from accelsim.optimizer.problem import BiasModel, CommonScale, Infeasible, Problem, Solution
from devices.base.errors import SpecError

# What meeting a budget to 1e-13 relative leaves in the objective, times an elasticity d log P / d log MSE of at most a few tens.
BUDGET_REL = 1e-11
VARIANTS = ("unclipped", "bounded", "biased")


def a_problem(variant: str, *, n_groups: int, seed: int = 0, n_rank: int = 12) -> Problem:
    """Coefficients over three decades; bounds that a typical optimum touches; a squared bias that is about a third of the MSE."""
    rng = np.random.default_rng(seed)
    variance = np.exp(rng.normal(0.0, 1.5, n_groups)) * 1e-10 / n_groups
    linear = np.exp(rng.normal(0.0, 1.5, n_groups)) * 10.0 / n_groups
    spread = np.exp(rng.normal(0.0, 0.3, (2, n_groups)))
    free = Problem(
        variance_siemens2=variance,
        linear_w_per_siemens=linear,
        c_min_siemens=np.full(n_groups, 1e-9),
        c_max_siemens=np.full(n_groups, 1.0),
        p0_w=0.01,
        bias=BiasModel(q2=1e-4),
    )
    if variant == "unclipped":
        return free
    square = np.exp(rng.normal(0.0, 1.5, n_groups)) * 1e5 / n_groups
    bounded = replace(free, square_w_per_siemens2=square, c_min_siemens=2e-6 * spread[0], c_max_siemens=5e-5 * spread[1])
    if variant == "bounded":
        return bounded
    b = rng.normal(0.5, 1.0, (n_rank, n_groups)) * np.sqrt(variance * 3.0 / n_groups)
    q = rng.normal(-0.2, 1.0, n_rank) * 1e-2
    bias = BiasModel(q2=float(q @ q) / n_rank, linear_siemens=q @ b / n_rank, factor_siemens=b / math.sqrt(n_rank))
    return replace(bounded, bias=bias)


def a_budget(problem: Problem, fraction: float) -> float:
    """An MSE between the floor and the ceiling, at a fraction of the way in logarithm (three floors where there is no ceiling)."""
    ends = extremes(problem)
    low, high = float(problem.mse(ends.least_mse.c_siemens)), float(problem.mse(ends.least_power.c_siemens))
    return low ** (1.0 - fraction) * min(high, 30.0 * low) ** fraction


def solved(answer: Solution | Infeasible) -> Solution:
    assert isinstance(answer, Solution)
    return answer


def scaled(answer: CommonScale | Infeasible) -> CommonScale:
    assert isinstance(answer, CommonScale)
    return answer


def mse_gradient(problem: Problem, u: np.ndarray) -> np.ndarray:
    """dMSE/du, written without the solver."""
    gradient = 2.0 * problem.variance_siemens2 * u
    if problem.bias.linear_siemens is not None:
        gradient = gradient + 2.0 * problem.bias.linear_siemens
    if problem.bias.factor_siemens is not None:
        gradient = gradient + 2.0 * problem.bias.factor_siemens.T @ (problem.bias.factor_siemens @ u)
    return gradient


def power_gradient(problem: Problem, u: np.ndarray) -> np.ndarray:
    """dP/du, written without the solver."""
    return -problem.linear_w_per_siemens / u**2 - 2.0 * problem.square / u**3


def scipy_minimum_w(problem: Problem, mse_budget: float) -> float:
    """Least power by SLSQP in z = c / c_start, started in the middle of the bounds, both sides scaled to one."""
    c0 = np.sqrt(problem.c_min_siemens * problem.c_max_siemens)
    scale_w = float(problem.controllable_w(c0))

    def chain(gradient_u: np.ndarray, z: np.ndarray) -> np.ndarray:
        return -gradient_u / (c0 * z * z)

    answer = minimize(
        lambda z: float(problem.controllable_w(c0 * z)) / scale_w,
        np.ones(problem.n_groups),
        jac=lambda z: chain(power_gradient(problem, 1.0 / (c0 * z)), z) / scale_w,
        bounds=list(zip(np.maximum(problem.c_min_siemens / c0, 1e-3), problem.c_max_siemens / c0)),
        constraints={
            "type": "ineq",
            "fun": lambda z: 1.0 - float(problem.mse(c0 * z)) / mse_budget,
            "jac": lambda z: -chain(mse_gradient(problem, 1.0 / (c0 * z)), z) / mse_budget,
        },
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 2000},
    )
    assert problem.mse(c0 * answer.x) <= mse_budget * (1.0 + 1e-9)
    return float(problem.power_w(c0 * answer.x))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_least_power_is_the_one_scipy_finds(variant: str) -> None:
    problem = a_problem(variant, n_groups=200)
    budget = a_budget(problem, 0.4)
    ours = solved(minimize_power(problem, budget))
    theirs_w = scipy_minimum_w(problem, budget)
    assert ours.power_w <= theirs_w * (1.0 + 1e-8)  # SLSQP may spend 1e-9 more MSE than the budget
    assert theirs_w == pytest.approx(ours.power_w, rel=1e-6)


def test_a_wrong_exponent_is_seen_as_worse_by_the_comparison_with_scipy() -> None:
    problem = a_problem("unclipped", n_groups=200)
    budget = a_budget(problem, 0.4)
    shape = np.sqrt(problem.variance_siemens2 / problem.linear_w_per_siemens)
    wrong = scaled(best_common_scale(problem, shape, mse_budget=budget))
    assert wrong.mse == pytest.approx(budget, rel=BUDGET_REL)
    assert wrong.power_w > scipy_minimum_w(problem, budget) * (1.0 + 1e-3)


def test_the_closed_form_spends_s_to_three_halves_over_root_m() -> None:
    problem = a_problem("unclipped", n_groups=300)
    budget = a_budget(problem, 0.5)
    s = (problem.variance_siemens2 ** (1 / 3) * problem.linear_w_per_siemens ** (2 / 3)).sum()
    m = budget - problem.bias.q2
    answer = solved(minimize_power(problem, budget))
    assert answer.n_iterations == 0
    assert answer.mse == pytest.approx(budget, rel=BUDGET_REL)
    assert answer.power_w - problem.p0_w == pytest.approx(s**1.5 / math.sqrt(m), rel=1e-12)
    ratio = (problem.variance_siemens2 / problem.linear_w_per_siemens) ** (1 / 3)
    np.testing.assert_allclose(answer.c_siemens, math.sqrt(s / m) * ratio, rtol=1e-12)


def test_the_search_in_lambda_agrees_with_the_closed_form() -> None:
    problem = a_problem("unclipped", n_groups=300)
    budget = a_budget(problem, 0.5)
    searched = solved(minimize_power(replace(problem, bias=replace(problem.bias, linear_siemens=np.zeros(300))), budget))
    assert searched.n_iterations > 0
    np.testing.assert_allclose(searched.c_siemens, solved(minimize_power(problem, budget)).c_siemens, rtol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("fraction", [0.05, 0.4, 0.9])
def test_the_optimum_satisfies_the_kkt_conditions(variant: str, fraction: float) -> None:
    problem = a_problem(variant, n_groups=500)
    budget = a_budget(problem, fraction)
    answer = solved(minimize_power(problem, budget))
    u = 1.0 / answer.c_siemens
    push, cost = mse_gradient(problem, u), answer.mse_per_watt * power_gradient(problem, u)
    size = 2.0 * problem.variance_siemens2 * u - cost + np.abs(push)
    slope = (push + cost) / size  # dL/du; positive: L wants a smaller u, a larger c
    free = ~answer.active_lower & ~answer.active_upper
    assert answer.mse == pytest.approx(budget, rel=BUDGET_REL)
    assert np.abs(slope[free]).max(initial=0.0) < 1e-10
    assert slope[answer.active_upper].min(initial=0.0) > -1e-10
    assert slope[answer.active_lower].max(initial=0.0) < 1e-10
    assert (problem.c_min_siemens <= answer.c_siemens).all()
    assert (answer.c_siemens <= problem.c_max_siemens).all()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("fraction", [0.05, 0.4, 0.9])
def test_the_two_problems_are_inverses(variant: str, fraction: float) -> None:
    problem = a_problem(variant, n_groups=200)
    cheap = solved(minimize_power(problem, a_budget(problem, fraction)))
    exact = solved(minimize_mse(problem, cheap.power_w))
    assert exact.mse == pytest.approx(cheap.mse, rel=BUDGET_REL)
    assert exact.multiplier * cheap.multiplier == pytest.approx(1.0, rel=1e-8)
    np.testing.assert_allclose(exact.c_siemens, cheap.c_siemens, rtol=1e-8)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("fraction", [0.05, 0.4, 0.9])
def test_the_duality_gap_closes(variant: str, fraction: float) -> None:
    problem = a_problem(variant, n_groups=300)
    cheap = solved(minimize_power(problem, a_budget(problem, fraction)))
    exact = solved(minimize_mse(problem, cheap.power_w))
    for answer in (cheap, exact):
        assert abs(answer.duality_gap_rel) <= 1e-10
        value = answer.power_w if answer.objective == "power" else answer.mse
        assert answer.lower_bound <= value * (1.0 + BUDGET_REL)


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_feasible_neighbour_is_below_the_lower_bound(variant: str) -> None:
    problem = a_problem(variant, n_groups=50)
    answer = solved(minimize_power(problem, a_budget(problem, 0.4)))
    rng = np.random.default_rng(5)
    size = 10.0 ** rng.uniform(-6.0, 0.0, (4000, 1))
    near = answer.c_siemens * np.exp(size * rng.normal(size=(4000, 50)))
    near = np.clip(near, problem.c_min_siemens, problem.c_max_siemens)
    feasible = near[problem.mse(near) <= answer.mse]
    assert len(feasible) > 100
    assert problem.power_w(feasible).min() >= answer.lower_bound * (1.0 - 1e-12)


def test_a_dual_point_away_from_the_optimum_still_bounds_from_below() -> None:
    problem = a_problem("biased", n_groups=50)
    answer = solved(minimize_power(problem, a_budget(problem, 0.4)))
    for factor in (0.1, 0.9, 1.1, 10.0):
        rate = factor * answer.mse_per_watt
        assert (minimize_lagrangian(problem, rate).dual - answer.mse) / rate < answer.power_w


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), variant=st.sampled_from(VARIANTS), fraction=st.floats(0.02, 0.98), spread=st.floats(0.001, 2.0))
def test_no_random_feasible_design_is_cheaper(seed: int, variant: str, fraction: float, spread: float) -> None:
    problem = a_problem(variant, n_groups=12, seed=seed, n_rank=5)
    answer = solved(minimize_power(problem, a_budget(problem, fraction)))
    designs = answer.c_siemens * np.exp(spread * np.random.default_rng(seed).normal(size=(300, 12)))
    designs = np.clip(designs, problem.c_min_siemens, problem.c_max_siemens)
    feasible = problem.mse(designs) <= answer.mse
    assert (problem.power_w(designs[feasible]) >= answer.power_w * (1.0 - BUDGET_REL)).all()
    affordable = problem.power_w(designs) <= answer.power_w
    assert (problem.mse(designs[affordable]) >= answer.mse * (1.0 - BUDGET_REL)).all()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(5))
def test_the_optimum_is_never_above_the_best_common_scale(variant: str, seed: int) -> None:
    problem = a_problem(variant, n_groups=40, seed=seed)
    relative = np.random.default_rng(seed).uniform(0.8, 1.2, 40)
    budget = a_budget(problem, 0.6)
    common = scaled(best_common_scale(problem, relative, mse_budget=budget))
    assert solved(minimize_power(problem, budget)).power_w <= common.power_w * (1.0 + BUDGET_REL)
    assert solved(minimize_mse(problem, common.power_w)).mse <= common.mse * (1.0 + BUDGET_REL)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_best_common_scale_is_the_best_of_a_fine_grid(variant: str) -> None:
    problem = a_problem(variant, n_groups=40)
    budget = a_budget(problem, 0.6)
    least = scaled(best_common_scale(problem, np.ones(40), mse_budget=budget))
    grid = np.geomspace(problem.c_min_siemens.max(), problem.c_max_siemens.min(), 20_001)[:, None] * np.ones(40)
    power_w, mse = problem.power_w(grid), problem.mse(grid)
    assert least.mse <= budget * (1.0 + BUDGET_REL)
    assert least.power_w <= power_w[mse <= budget].min() * (1.0 + BUDGET_REL)
    exact = scaled(best_common_scale(problem, np.ones(40), power_budget_w=least.power_w))
    assert exact.power_w <= least.power_w * (1.0 + BUDGET_REL)
    assert exact.mse <= mse[power_w <= least.power_w].min() * (1.0 + BUDGET_REL)


def test_a_common_scale_that_cannot_exist_or_reach_is_refused() -> None:
    problem = a_problem("bounded", n_groups=4)
    with pytest.raises(SpecError, match="no common scale"):
        best_common_scale(problem, np.array([1.0, 1.0, 1.0, 1e4]), mse_budget=1.0)
    with pytest.raises(SpecError, match="exactly one budget"):
        best_common_scale(problem, np.ones(4))
    with pytest.raises(SpecError, match="relative_scales > 0"):
        best_common_scale(problem, np.array([1.0, 1.0, 1.0, 0.0]), mse_budget=1.0)
    poor = best_common_scale(problem, np.ones(4), power_budget_w=problem.p0_w)
    assert isinstance(poor, Infeasible)
    assert poor.at == "power"


def test_a_budget_at_the_floor_that_no_scale_moves_takes_the_largest_scale() -> None:
    """Where variance is lost in the rounding of the floor, the closed form asks for an infinite scale."""
    problem = replace(a_problem("bounded", n_groups=4), bias=BiasModel(q2=1.0), variance_siemens2=np.full(4, 1e-27))
    assert float(problem.mse(problem.c_max_siemens)) == 1.0 < float(problem.mse(problem.c_min_siemens))
    found = scaled(best_common_scale(problem, np.ones(4), mse_budget=1.0))
    assert found.mse == 1.0
    assert found.scale_siemens == pytest.approx(problem.c_max_siemens.min())


def genetic_least_power(problem: Problem, mse_budget: float, *, seed: int) -> float:
    """A plain genetic algorithm: population 100, 100 generations, log c, every child rescaled until its MSE is the budget."""
    rng = np.random.default_rng(seed)

    def feasible(genes: np.ndarray) -> np.ndarray:
        c = np.exp(genes)
        excess = problem.mse_excess(c)  # proportional to 1 / t^2
        return genes + 0.5 * np.log(excess / (mse_budget - problem.bias.q2))[:, None]

    population = feasible(rng.normal(0.0, 0.5, (100, problem.n_groups)))
    for _ in range(100):
        fitness = problem.power_w(np.exp(population))
        pairs = rng.integers(0, 100, (2, 200))
        winners = np.where(fitness[pairs[0]] < fitness[pairs[1]], pairs[0], pairs[1])
        mix = rng.random((100, problem.n_groups))
        children = mix * population[winners[:100]] + (1.0 - mix) * population[winners[100:]]
        children = feasible(children + 0.05 * rng.normal(size=children.shape))
        everyone = np.concatenate([population, children])
        population = everyone[np.argsort(problem.power_w(np.exp(everyone)))[:100]]
    return float(problem.power_w(np.exp(population)).min())


def test_a_genetic_algorithm_never_beats_the_closed_form_but_comes_near() -> None:
    problem = a_problem("unclipped", n_groups=15)
    budget = a_budget(problem, 0.5)
    least_w = solved(minimize_power(problem, budget)).power_w
    for seed in range(3):
        searched_w = genetic_least_power(problem, budget, seed=seed)
        assert least_w * (1.0 - 1e-12) <= searched_w < 1.05 * least_w


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_pareto_curve_is_monotone_convex_and_made_of_optima(variant: str) -> None:
    problem = a_problem(variant, n_groups=60)
    curve = pareto(problem, 41)
    rounding = 1e-12
    assert (np.diff(curve.power_w) >= -rounding * curve.power_w[1:]).all()
    assert (np.diff(curve.mse) <= rounding * curve.mse[1:]).all()
    assert (np.diff(curve.mse_per_watt) < 0.0).all()
    # lambda is the slope: the chord between neighbours lies between their rates
    drop, rise = -np.diff(curve.mse), np.diff(curve.power_w)
    assert (drop <= curve.mse_per_watt[:-1] * rise + rounding * curve.mse[:-1]).all()
    assert (drop >= curve.mse_per_watt[1:] * rise - rounding * curve.mse[:-1]).all()
    for i in (10, 20, 30):
        assert solved(minimize_mse(problem, float(curve.power_w[i]))).mse == pytest.approx(curve.mse[i], rel=1e-9)


def test_the_pareto_curve_of_bounded_groups_joins_both_ends() -> None:
    problem = a_problem("bounded", n_groups=60)
    curve = pareto(problem, 2)
    np.testing.assert_allclose(curve.c_siemens[0], problem.c_min_siemens, rtol=1e-9)
    np.testing.assert_allclose(curve.c_siemens[-1], problem.c_max_siemens, rtol=1e-9)


@pytest.mark.parametrize("variant", ["bounded", "biased"])
def test_a_budget_below_the_floor_answers_with_the_floor(variant: str) -> None:
    problem = a_problem(variant, n_groups=30)
    floor = float(problem.mse(extremes(problem).least_mse.c_siemens))
    answer = minimize_power(problem, 0.9 * floor)
    assert isinstance(answer, Infeasible)
    assert (answer.at, answer.budget) == ("mse", 0.9 * floor)
    assert answer.floor == pytest.approx(floor)
    assert answer.gap == pytest.approx(0.1 * floor)
    floor_w = float(problem.power_w(problem.c_min_siemens))
    poor = minimize_mse(problem, 0.9 * floor_w)
    assert isinstance(poor, Infeasible)
    assert (poor.at, poor.floor) == ("power", pytest.approx(floor_w))


def test_the_floor_of_the_error_is_the_least_that_scipy_finds() -> None:
    problem = a_problem("biased", n_groups=30)
    floor = float(problem.mse(extremes(problem).least_mse.c_siemens))
    size = 1.0 / problem.c_max_siemens
    found = minimize(
        lambda z: float(problem.mse(1.0 / (z * size))) / floor,
        2.0 * np.ones(30),
        jac=lambda z: mse_gradient(problem, z * size) * size / floor,
        bounds=list(zip(np.ones(30), 1.0 / (problem.c_min_siemens * size))),
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-12, "maxiter": 5000},
    )
    assert found.fun == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("variant", ["bounded", "biased"])
def test_a_budget_at_the_floor_is_feasible(variant: str) -> None:
    problem = a_problem(variant, n_groups=30)
    floor = float(problem.mse(extremes(problem).least_mse.c_siemens))
    assert solved(minimize_power(problem, floor)).mse == pytest.approx(floor, rel=1e-12)
    floor_w = float(problem.power_w(problem.c_min_siemens))
    assert solved(minimize_mse(problem, floor_w)).power_w == pytest.approx(floor_w, rel=1e-12)


@pytest.mark.parametrize("variant", ["bounded", "biased"])
def test_a_budget_above_the_ceiling_has_slack_and_no_price(variant: str) -> None:
    problem = a_problem(variant, n_groups=30)
    rich = solved(minimize_mse(problem, 2.0 * float(problem.power_w(problem.c_max_siemens))))
    assert rich.slack
    assert rich.multiplier == rich.mse_per_watt == 0.0
    assert abs(rich.duality_gap_rel) <= 1e-10
    lax = solved(minimize_power(problem, 2.0 * float(problem.mse(problem.c_min_siemens))))
    assert lax.slack
    assert lax.multiplier == 0.0
    assert lax.mse_per_watt == math.inf
    assert lax.active_lower.all()
    assert lax.power_w == lax.lower_bound


def test_groups_without_error_sit_at_c_min_and_groups_without_power_at_c_max() -> None:
    problem = a_problem("bounded", n_groups=6)
    variance, linear, square = (np.array(x) for x in (problem.variance_siemens2, problem.linear_w_per_siemens, problem.square))
    variance[0] = 0.0
    linear[1] = square[1] = 0.0
    square[2] = 0.0
    linear[3] = 0.0
    odd = replace(problem, variance_siemens2=variance, linear_w_per_siemens=linear, square_w_per_siemens2=square)
    budget = a_budget(odd, 0.4)
    answer = solved(minimize_power(odd, budget))
    assert answer.active_lower[0]
    assert answer.active_upper[1]
    assert answer.mse == pytest.approx(budget, rel=BUDGET_REL)
    assert abs(answer.duality_gap_rel) <= 1e-10


def test_a_group_without_variance_but_with_bias_is_still_optimal() -> None:
    problem = a_problem("biased", n_groups=6, n_rank=4)
    variance = np.array(problem.variance_siemens2)
    variance[0] = 0.0
    odd = replace(problem, variance_siemens2=variance)
    answer = solved(minimize_power(odd, a_budget(odd, 0.4)))
    assert abs(answer.duality_gap_rel) <= 1e-9


def test_problems_with_nothing_to_trade_have_an_answer() -> None:
    problem = a_problem("bounded", n_groups=3)
    free = replace(problem, linear_w_per_siemens=np.zeros(3), square_w_per_siemens2=None)
    answer = solved(minimize_power(free, 1.0))
    assert answer.slack
    assert answer.active_upper.all()
    silent = solved(minimize_mse(replace(problem, variance_siemens2=np.zeros(3)), 1.0))
    assert silent.slack
    assert silent.active_lower.all()
    with pytest.raises(SpecError, match="no curve"):
        pareto(free)


def test_equal_bounds_pin_a_group() -> None:
    problem = a_problem("bounded", n_groups=5)
    low = np.array(problem.c_min_siemens)
    low[2] = problem.c_max_siemens[2]
    pinned = replace(problem, c_min_siemens=low)
    answer = solved(minimize_power(pinned, a_budget(pinned, 0.5)))
    assert answer.c_siemens[2] == low[2]
    assert answer.active_lower[2]
    assert answer.active_upper[2]


def test_a_gram_matrix_and_its_factor_give_the_same_optimum() -> None:
    problem = a_problem("biased", n_groups=30)
    factor, linear = problem.bias.factor_siemens, problem.bias.linear_siemens
    assert factor is not None
    assert linear is not None
    gram = BiasModel.from_gram(problem.bias.q2, linear, gram_siemens2=factor.T @ factor)
    assert gram.factor_siemens is not None
    assert gram.factor_siemens.shape[0] == factor.shape[0]
    budget = a_budget(problem, 0.4)
    again = solved(minimize_power(replace(problem, bias=gram), budget))
    assert again.power_w == pytest.approx(solved(minimize_power(problem, budget)).power_w, rel=1e-9)


def test_folding_the_bias_into_the_variance_misses_the_optimum() -> None:
    """The negative control of the coupling: biases add coherently, so their squares added one by one are another problem."""
    problem = a_problem("biased", n_groups=60)
    factor = problem.bias.factor_siemens
    assert factor is not None
    folded = replace(problem, variance_siemens2=problem.variance_siemens2 + (factor**2).sum(axis=0), bias=BiasModel(q2=problem.bias.q2))
    budget = a_budget(problem, 0.4)
    assert abs(float(problem.mse(solved(minimize_power(folded, budget)).c_siemens)) / budget - 1.0) > 0.05


@pytest.mark.parametrize("variant", VARIANTS)
def test_ten_thousand_columns_take_few_evaluations(variant: str) -> None:
    problem = a_problem(variant, n_groups=10_000)
    for fraction in (0.05, 0.4, 0.9):
        cheap = solved(minimize_power(problem, a_budget(problem, fraction)))
        exact = solved(minimize_mse(problem, cheap.power_w))
        assert max(cheap.n_iterations, exact.n_iterations) <= {"unclipped": 0, "bounded": 20, "biased": 80}[variant]
        assert max(abs(cheap.duality_gap_rel), abs(exact.duality_gap_rel)) <= 1e-10


def test_units_do_not_matter() -> None:
    """Conductances in nanosiemens, power in microwatts and outputs a thousand times larger give the same design."""
    problem = a_problem("biased", n_groups=20)
    bias = problem.bias
    assert bias.linear_siemens is not None
    assert bias.factor_siemens is not None
    odd = Problem(
        variance_siemens2=problem.variance_siemens2 * 1e18 * 1e6,
        linear_w_per_siemens=problem.linear_w_per_siemens * 1e-9 * 1e6,
        square_w_per_siemens2=problem.square * 1e-18 * 1e6,
        c_min_siemens=problem.c_min_siemens * 1e9,
        c_max_siemens=problem.c_max_siemens * 1e9,
        p0_w=problem.p0_w * 1e6,
        bias=BiasModel(
            q2=bias.q2 * 1e6, linear_siemens=bias.linear_siemens * 1e9 * 1e6, factor_siemens=bias.factor_siemens * 1e9 * 1e3
        ),
    )
    budget = a_budget(problem, 0.4)
    np.testing.assert_allclose(
        solved(minimize_power(odd, budget * 1e6)).c_siemens, solved(minimize_power(problem, budget)).c_siemens * 1e9, rtol=1e-9
    )


def _negative(problem: Problem) -> Problem:
    return replace(problem, variance_siemens2=-problem.variance_siemens2)


def _short(problem: Problem) -> Problem:
    return replace(problem, linear_w_per_siemens=problem.linear_w_per_siemens[:-1])


def _crossed(problem: Problem) -> Problem:
    return replace(problem, c_min_siemens=problem.c_max_siemens, c_max_siemens=problem.c_min_siemens)


def _infinite(problem: Problem) -> Problem:
    return replace(problem, c_max_siemens=np.full(problem.n_groups, np.inf))


def _loose(problem: Problem) -> Problem:
    zero = np.zeros(problem.n_groups)
    bias = BiasModel(factor_siemens=np.ones((1, problem.n_groups)))
    return replace(problem, variance_siemens2=zero, linear_w_per_siemens=zero, square_w_per_siemens2=None, bias=bias)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_negative, "need variance_siemens2 >= 0"),
        (_short, "need linear_w_per_siemens for the 5 groups"),
        (_crossed, "need 0 < c_min_siemens <= c_max_siemens"),
        (_infinite, "need finite c_max_siemens"),
        (_loose, "need A, B or D > 0 for group 0"),
    ],
)
def test_a_problem_that_breaks_a_rule_is_refused(spoil: Callable[[Problem], Problem], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        spoil(a_problem("bounded", n_groups=5))


def test_an_indefinite_gram_matrix_is_refused() -> None:
    with pytest.raises(SpecError, match="eigenvalues >= 0"):
        BiasModel.from_gram(0.0, np.zeros(2), gram_siemens2=np.array([[1.0, 2.0], [2.0, 1.0]]))


def test_a_budget_that_is_no_budget_is_refused() -> None:
    problem = a_problem("bounded", n_groups=5)
    with pytest.raises(SpecError, match="mse_budget > 0"):
        minimize_power(problem, math.nan)
    with pytest.raises(SpecError, match="power_budget_w > 0"):
        minimize_mse(problem, -1.0)


def test_records_cannot_be_changed_and_equal_problems_share_a_digest() -> None:
    problem = a_problem("biased", n_groups=5)
    answer = solved(minimize_power(problem, a_budget(problem, 0.5)))
    for array in (problem.variance_siemens2, answer.c_siemens, answer.active_lower, pareto(problem, 3).power_w):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0
    assert problem.digest == a_problem("biased", n_groups=5).digest
    assert problem.digest != replace(problem, p0_w=0.5).digest


@pytest.mark.parametrize("seed", range(20))
def test_an_error_that_is_nearly_all_bias_still_converges(seed: int) -> None:
    """Squared bias up to 1e4 times larger: the dual is nearly piecewise linear, and plain step halving stalls on it."""
    problem = a_problem("biased", n_groups=40, seed=seed, n_rank=10)
    bias = problem.bias
    assert bias.linear_siemens is not None
    assert bias.factor_siemens is not None
    heavy = BiasModel(q2=bias.q2, linear_siemens=-100.0 * bias.linear_siemens, factor_siemens=-100.0 * bias.factor_siemens)
    odd = replace(problem, bias=heavy)
    answer = solved(minimize_power(odd, a_budget(odd, 0.3)))
    assert abs(answer.duality_gap_rel) <= 1e-8


def test_a_bias_that_no_samples_have_is_refused() -> None:
    problem = replace(a_problem("bounded", n_groups=3), bias=BiasModel(q2=1e-9, linear_siemens=-np.ones(3)))
    with pytest.raises(SpecError, match="from the same samples"):
        minimize_power(problem, 1.0)
