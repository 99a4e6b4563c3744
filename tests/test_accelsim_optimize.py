"""Optimal designs of real networks: better than any common scale, and what they promise is what Monte-Carlo finds."""

from functools import cache

import numpy as np
import pytest

from accelsim import load_embedded
from accelsim.accelerator import Accelerator
from accelsim.optimizer.optimize import optimize
from accelsim.placement import Plan, place
from accelsim.prediction.predict import predict
from accelsim.report.design_report import DesignReport
from accelsim.sampling.monte_carlo import monte_carlo
from devices.base.errors import SpecError
from tests.digits import digits_plan, digits_samples
from workloads.samples import Samples

SEED = 11


@cache
def images() -> Samples:
    return digits_samples()[:48]


def answer(plan: Plan, *, per: str = "layer", **budget: float) -> DesignReport:
    """Return the optimum on the 48 images, without its own Monte-Carlo run."""
    return optimize(plan, images(), verify=images(), seed=SEED, per=per, mc_max_trials=0, **budget)  # type: ignore[arg-type]


def budget_of(plan: Plan) -> float:
    """Return an error budget: four times the error at full conductance."""
    return 4.0 * predict(plan, images(), seed=SEED, attribution=False).mse


@pytest.mark.parametrize("clip", [False, True])
def test_layers_beat_a_common_scale_and_columns_beat_layers(clip: bool) -> None:
    plan = digits_plan("cnn", error_rel=0.004, clip=clip)
    budget = budget_of(plan)
    powers = {per: answer(plan, per=per, mse_budget=budget).read_power_w for per in ("network", "layer", "column")}
    assert powers["column"] < powers["layer"] < powers["network"]


@pytest.mark.parametrize("per", ["layer", "column"])
def test_monte_carlo_meets_the_error_budget_on_clipped_cells(per: str) -> None:
    plan = digits_plan("cnn", error_rel=0.004, clip=True)
    budget = budget_of(plan)
    found = answer(plan, per=per, mse_budget=budget)
    assert found.design is not None
    trials = monte_carlo(plan.with_design(found.design), images(), seed=SEED + 1, rel_error=0.01, threads=2)
    assert trials.mse == pytest.approx(budget, rel=0.02, abs=3 * trials.mse_se)
    assert trials.read_power_w == pytest.approx(found.read_power_w, rel=0.01)


def test_a_power_budget_is_spent_and_its_error_is_what_monte_carlo_finds() -> None:
    plan = digits_plan("cnn", "sense.feedback_ohm=1 kohm", error_rel=0.004, clip=True)
    full = predict(plan, images(), seed=SEED, attribution=False)
    found = answer(plan, power_budget_w=0.5 * full.read_power_w)
    assert found.design is not None
    assert found.read_power_w == pytest.approx(0.5 * full.read_power_w, rel=1e-6)
    trials = monte_carlo(plan.with_design(found.design), images(), seed=SEED + 1, rel_error=0.01, threads=2)
    assert trials.read_power_w == pytest.approx(found.read_power_w, rel=0.01)
    assert trials.mse == pytest.approx(found.mse, rel=0.02, abs=3 * trials.mse_se)


def test_power_and_error_budgets_are_two_sides_of_one_curve() -> None:
    plan = digits_plan("mlp", error_rel=0.004, clip=False)
    by_error = answer(plan, mse_budget=budget_of(plan))
    by_power = answer(plan, power_budget_w=float(by_error.read_power_w or 0.0))
    assert by_power.mse == pytest.approx(by_error.mse, rel=5e-3)
    assert by_error.multiplier * by_power.multiplier == pytest.approx(1.0, rel=0.02)  # type: ignore[operator]


def test_the_certificate_is_tight_and_the_curve_passes_through_the_design() -> None:
    found = answer(digits_plan("cnn", error_rel=0.004), mse_budget=budget_of(digits_plan("cnn", error_rel=0.004)))
    assert found.duality_gap is not None
    assert found.duality_gap < 1e-8
    power, mse = np.array([(p["read_power_w"], p["mse"]) for p in found.pareto]).T
    assert power.min() < float(found.read_power_w or 0.0) < power.max()
    on_curve = np.exp(np.interp(np.log(float(found.read_power_w or 0.0)), np.log(power), np.log(mse)))
    assert on_curve == pytest.approx(found.mse, rel=0.03)


def test_the_curve_ends_at_the_design_where_the_budget_does_not_bind() -> None:
    found = answer(digits_plan("cnn", error_rel=0.02, clip=True), power_budget_w=1.0)
    assert found.n_at_upper_bound == len(found.design.g_used_siemens)  # type: ignore[union-attr]
    assert found.pareto[-1] == pytest.approx({"read_power_w": found.read_power_w, "mse": found.mse}, rel=1e-3)


def test_a_yield_asks_for_a_better_mean_and_that_share_of_chips_meets_the_budget() -> None:
    plan = digits_plan("cnn", error_rel=0.004, clip=False)
    budget = budget_of(plan)
    mean = answer(plan, mse_budget=budget)
    yielding = answer(plan, mse_budget=budget, yield_p=0.9)
    assert float(yielding.mse or 1.0) < float(mean.mse or 0.0)
    assert yielding.design is not None
    losses = monte_carlo(plan.with_design(yielding.design), images(), seed=SEED + 1, rel_error=0.01, max_trials=600, threads=2).losses
    share, spread = float(np.mean(losses <= budget)), 3.0 * np.sqrt(0.9 * 0.1 / len(losses))
    assert share == pytest.approx(0.9, abs=spread + 0.05)  # the spread over chips is itself known to about a fifth


def test_an_error_budget_below_the_floor_is_answered_with_floor_gap_and_levers() -> None:
    plan = digits_plan("cnn", error_rel=0.03)
    found = answer(plan, mse_budget=1e-9)
    assert not found.feasible
    assert found.design is None
    assert found.gap == pytest.approx(float(found.floor or 0.0) - 1e-9)
    assert any("g_max_siemens" in lever for lever in found.levers)
    assert "INFEASIBLE" in str(found)


def test_an_error_that_does_not_depend_on_the_scale_says_so_and_takes_the_lower_bound() -> None:
    plan = digits_plan("cnn", 'cell.programming={kind="proportional",error_rel=0.02,clip=false}')
    found = answer(plan, power_budget_w=1.0)
    assert any("does not depend on the scales" in note for note in found.notes)
    assert found.n_at_lower_bound == len(plan.layers)
    assert found.pareto == ()


def test_precompensation_takes_the_clipping_bias_away() -> None:
    plain, moved = (digits_plan("cnn", f"mapping.precompensate={flag}", error_rel=0.02, clip=True) for flag in ("false", "true"))
    before, after = (predict(p, images(), seed=SEED, attribution=False, method="adjoint") for p in (plain, moved))
    assert after.bias2 < 1e-6 * before.bias2
    trials = monte_carlo(moved, images(), seed=SEED, rel_error=0.01, threads=2)
    best = predict(moved, images(), seed=SEED, attribution=False, method="sketched")
    assert trials.agreement_with(best, tolerance=0.03).agrees


@pytest.mark.parametrize(
    "budgets", [{}, {"power_budget_w": 1e-3, "mse_budget": 0.1}, {"mse_budget": -1.0}, {"mse_budget": 0.1, "yield_p": 1.5}]
)
def test_contradicting_budgets_are_refused(budgets: dict[str, float]) -> None:
    with pytest.raises(SpecError, match=r"budget|yield"):
        optimize(digits_plan("mlp"), images(), seed=SEED, **budgets)  # type: ignore[arg-type]


def test_a_budget_where_noise_takes_more_power_than_scales_save_is_infeasible_with_a_floor_that_a_design_reaches() -> None:
    """At small scales noise grows from layer to layer and takes power: a model refreshed there told a floor of hundreds of microwatts."""
    network, samples = load_embedded("fashion_cnn")
    chip = Accelerator.preset("memse").with_set("cell.error_rel=0.0492", "cell.g_max_siemens=1e-4", "mapping.levels=64")
    plan, images = place(network, chip, calibration=samples[:16]), samples[16:24]
    least_w = min(_power_at(plan, images, g) for g in (1e-4, 7e-5, 5e-5, 4e-5, 3e-5, 2.5e-5, 2e-5, 1.5e-5))

    refused = optimize(plan, images, power_budget_w=0.7 * least_w, seed=7, verify=images, mc_max_trials=0)
    assert not refused.feasible
    assert refused.floor is not None
    assert 0.9 * least_w < refused.floor < 1.3 * least_w  # the scan has one scale for all: one a layer may take less

    found = optimize(plan, images, power_budget_w=1.2 * least_w, seed=7, verify=images, mc_max_trials=0)
    assert found.feasible
    assert found.read_power_verify_w is not None
    assert found.read_power_verify_w < 1.05 * 1.2 * least_w
    assert _power_at(plan, images, 5e-6) > 5.0 * least_w  # what noise takes: scales as small as this save nothing


def _power_at(plan: Plan, images: Samples, g_used_siemens: float) -> float:
    chip = plan.accelerator.with_set(f"mapping.g_used_siemens={g_used_siemens}")
    report = predict(place(plan.network, chip, calibration=images), images, seed=7, method="adjoint", attribution=False)
    return report.read_power_w
