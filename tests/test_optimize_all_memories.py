"""Networks without a crossbar: error rates of memories under one budget, against SciPy, one rate for all, and Monte-Carlo."""

from functools import cache

import numpy as np
import pytest
from scipy.optimize import minimize

from accelsim.ledger import inferences_per_second, read_power
from accelsim.optimizer.memories import MemorySite
from accelsim.optimizer.optimize import optimize
from accelsim.optimizer.search import Question, Search
from accelsim.placement import Plan
from accelsim.prediction.predict import predict
from accelsim.report.design_report import DesignReport
from accelsim.response.target import mean_weights
from accelsim.sampling.monte_carlo import monte_carlo
from tests.digits import digits_plan, digits_samples

IMAGES, HELD_OUT = digits_samples()[100:116], digits_samples()[116:132]
ENERGIES = tuple(f"memory.{part}.{name}_energy_j=0.055 pJ" for part in ("weights", "activations") for name in ("read", "write"))
PARTS = ("weights", "activations")
LAWS = {"sram_14nm": "v_rel=1.0", "exponential": "error_rate_p=1e-5"}


@cache
def plan_of(law: str, *more: str) -> Plan:
    points = tuple(f"memory.{part}.{LAWS[law]}" for part in PARTS)
    used = tuple(f"memory.{part}.law.kind={law}" for part in PARTS)
    return digits_plan("cnn", *used, *points, *ENERGIES, "drive.t_read_s=1 us", "drive.rate_hz=1000", *more)


def power_of(plan: Plan) -> float:
    return sum(layer.total_w for layer in read_power(plan, plan.graph, IMAGES, [mean_weights(plan)]).values())


def answer(plan: Plan, **budget: object) -> DesignReport:
    return optimize(plan, IMAGES, verify=HELD_OUT, seed=3, mc_max_trials=0, **budget)  # type: ignore[arg-type]


def sites_of(plan: Plan) -> tuple[MemorySite, ...]:
    question = Question(power_budget_w=1.0, mse_budget=None, per="layer", yield_p=None, memories="layer")
    search = Search(plan, IMAGES, question=question, seed=3, output=None, reference="float")
    search.weigh_memories()
    assert search.memories is not None
    return search.memories.sites


def slsqp_damage(sites: tuple[MemorySite, ...], power_w: float) -> float:
    """Least sum of damages within a power, one rate a site, by SLSQP over ln p."""
    law, w = sites[0].memory.law, np.array([site.bit_w * site.memory.word.n_bits for site in sites])
    s = np.array([site.damage.sum() for site in sites])
    low, high = np.log(law.bounds[0]), np.log(0.5 * (1.0 - 1e-9))
    start = np.full(len(w), np.log(law.error_rate(power_w / w.sum())))
    scale = float(s @ np.exp(start))
    found = minimize(
        lambda x: np.log(s @ np.exp(x) / scale), start, bounds=[(low, high)] * len(w), method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 2000},
        constraints={"type": "ineq", "fun": lambda x: 1.0 - w @ law.energy_rel(np.exp(np.clip(x, low, high))) / power_w},
    )  # fmt: skip
    assert found.success
    return float(s @ np.exp(found.x))


@pytest.mark.parametrize("law", list(LAWS))
def test_a_network_without_a_crossbar_has_scipy_s_optimum_and_its_multiplier(law: str) -> None:
    plan = plan_of(law)
    budget = 0.9 * power_of(plan)
    less, found, more = (answer(plan, power_budget_w=f * budget) for f in (0.999, 1.0, 1.001))
    assert found.design is not None
    assert not found.design.g_used_siemens
    assert found.read_power_w == pytest.approx(budget, rel=1e-4)
    sites = sites_of(plan)
    rates = [found.design.memory_p[site.part][site.layer] for site in sites]
    damage = sum(float(site.damage.sum()) * float(p) for site, p in zip(sites, rates))  # type: ignore[arg-type]
    assert damage == pytest.approx(slsqp_damage(sites, budget), rel=1e-3)
    assert less.mse is not None
    assert more.mse is not None
    assert (less.mse - more.mse) / (0.002 * budget) == pytest.approx(found.multiplier, rel=0.02)


def test_the_design_is_what_monte_carlo_says_and_beats_one_rate_for_all() -> None:
    plan = plan_of("sram_14nm")
    budget = 0.92 * power_of(plan)
    found = answer(plan, power_budget_w=budget)
    assert found.design is not None
    best = plan.with_design(found.design)
    trials = monte_carlo(best, HELD_OUT, seed=9, rel_error=0.03, max_trials=1500)
    assert found.mse_verify == pytest.approx(trials.mse, abs=0.02 * trials.mse + 3.0 * trials.mse_se)
    assert power_of(best) == pytest.approx(budget, rel=1e-3)
    assert trials.read_power_w == pytest.approx(power_of(best), rel=1e-9), "Monte-Carlo counts memories too"
    law = sites_of(plan)[0].memory.law
    one = plan_of("sram_14nm", *(f"memory.{part}.energy_rel={0.92 * law.energy_bounds[1]}" for part in PARTS))
    assert power_of(one) == pytest.approx(budget, rel=1e-6)
    assert predict(one, HELD_OUT, seed=3).mse > 1.2 * trials.ci_high


def test_energy_and_error_budgets_are_the_same_curve() -> None:
    plan = plan_of("sram_14nm")
    by_power = answer(plan, power_budget_w=0.9 * power_of(plan))
    by_energy = answer(plan, energy_budget_j=0.9 * power_of(plan) / inferences_per_second(plan))
    by_error = answer(plan, mse_budget=by_power.mse)
    assert by_energy.mse == pytest.approx(by_power.mse, rel=1e-6)
    assert by_error.read_power_w == pytest.approx(by_power.read_power_w, rel=1e-4)
    assert by_error.multiplier == pytest.approx(1.0 / (by_power.multiplier or 1.0), rel=0.05)
    powers, errors = np.array([(p["read_power_w"], p["mse"]) for p in by_power.pareto]).T
    assert np.all(np.diff(powers) >= 0.0)
    assert np.all(np.diff(errors) <= 1e-12)
    on_curve = np.exp(np.interp(by_power.read_power_w or 0.0, powers, np.log(errors)))
    assert on_curve == pytest.approx(by_power.mse, rel=0.1)


def test_beyond_the_floor_there_is_no_design_and_the_levers_are_of_memories() -> None:
    plan = plan_of("sram_14nm")
    least = 0.710**2 * power_of(plan)
    low, exact = answer(plan, power_budget_w=0.5 * least), answer(plan, mse_budget=1e-9)
    assert not low.feasible
    assert low.floor == pytest.approx((12.779 / 18.111) ** 2 * power_of(plan), rel=1e-6)
    assert not exact.feasible
    assert all("scale" not in lever and "g_max" not in lever for report in (low, exact) for lever in report.levers)


@pytest.mark.slow
def test_weights_activations_and_partial_sums_share_one_budget() -> None:
    """One layer in a crossbar of eight rows, whose partial sums are kept; weights of the others in memory."""
    plan = plan_of(
        "sram_14nm", "memory.partial_sums.law.kind=sram_14nm", "memory.partial_sums.v_rel=1.0", "memory.partial_sums.word.n_bits=12",
        "memory.partial_sums.read_energy_j=0.055 pJ", "memory.partial_sums.write_energy_j=0.055 pJ", "mapping.array.n_rows=8",
        "mapping.array.n_columns=64", "layers.conv2.memory.weights=none", "cell.programming.error_rel=0.01",
    )  # fmt: skip
    budget = 0.93 * power_of(plan)
    joint, fixed = answer(plan, power_budget_w=budget), answer(plan, power_budget_w=budget, memories="fixed")
    assert joint.design is not None
    assert set(joint.design.memory_p) == {"weights", "activations", "partial_sums"}
    assert list(joint.design.g_used_siemens) == ["conv2"]
    assert joint.mse is not None
    assert fixed.mse is None or joint.mse < fixed.mse
    placed = plan.with_design(joint.design)
    trials = monte_carlo(placed, HELD_OUT, seed=9, rel_error=0.08, max_trials=300)
    assert predict(placed, HELD_OUT, seed=3).mse == pytest.approx(trials.mse, abs=0.03 * trials.mse + 3.0 * trials.mse_se)
    assert power_of(placed) == pytest.approx(budget, rel=0.03)


def test_memories_without_an_energy_are_told_with_the_field_that_is_missing() -> None:
    free = plan_of("sram_14nm", *(f"memory.{part}.{name}_energy_j=0" for part in PARTS for name in ("read", "write")))
    told = [note for note in answer(free, power_budget_w=1.0).notes if "read_energy_j: absent" in note]
    assert [note.split(":")[0] for note in told] == [f"memory.{part}.read_energy_j" for part in PARTS]
    assert not any("absent" in note for note in answer(plan_of("sram_14nm"), power_budget_w=1.0).notes)  # the negative control
