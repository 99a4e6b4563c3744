"""Damages measured anew at a design: against brute force over error rates, where single faults mislead and where they do not."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from accelsim.design import Design
from accelsim.optimizer import refresh as refreshing
from accelsim.optimizer.memories import MemoryChoice, MemoryProblem, price_range
from accelsim.optimizer.refresh import DAMPING, MOST_CHANGE, measured_factors
from accelsim.placement import Plan
from accelsim.report.design_report import DesignReport
from accelsim.sampling.monte_carlo import monte_carlo
from devices.reliability import Exponential
from tests.test_optimize_all_memories import IMAGES, answer, plan_of, power_of, sites_of
from tests.test_optimize_memories import site

SATURATES = 0.5, 0.01
"""E(p) = a (1 - exp(-p / b)) + 5 p_2: the first memory's errors saturate; its single faults do a / b each."""


def error(choice: MemoryChoice) -> float:
    (top, scale), (one, two) = SATURATES, (float(p[0]) for p in choice.rates)
    return top * (1.0 - np.exp(-one / scale)) + 5.0 * two


def two_memories() -> MemoryProblem:
    """Sites of two bits with the damages that single faults would show."""
    sites = [site([0.5 * s] * 2, 0.5, Exponential(), name) for s, name in ((SATURATES[0] / SATURATES[1], "a"), (5.0, "b"))]
    return MemoryProblem(sites, per_bit=False, codes=False)


def within(memories: MemoryProblem, power_w: float) -> MemoryChoice:
    """Return the choice at the price that takes a power."""
    low, high = np.log(price_range(memories)) + np.array([-9.0, 9.0])
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if memories.at(float(np.exp(middle))).power_w > power_w else (low, middle)
    return memories.at(float(np.exp(high)))


def test_refreshed_damages_lead_to_the_best_of_a_grid_where_errors_saturate() -> None:
    memories, power = two_memories(), 0.3
    first = best = now = within(memories, power)
    for share in (*[refreshing.SHARES[0]] * 6, *[refreshing.SHARES[1]] * 6):
        factors = measured_factors(memories, now, lambda c: np.full(2, error(c)), here=np.full(2, error(now)), share=share)
        memories = memories.with_damages(factors**DAMPING)
        now = within(memories, power)
        best = min(best, now, key=error)
    law, energies = Exponential(), np.linspace(*Exponential().energy_bounds, 4001)
    pairs = [(e, power - e) for e in energies if law.energy_bounds[0] < power - e < law.energy_bounds[1]]
    grid = [error(memories.choice([np.full(2, law.error_rate(e)) for e in pair], [False, False])) for pair in pairs]
    assert best.power_w == pytest.approx(power)
    assert error(best) == pytest.approx(min(grid), rel=0.05)
    assert error(first) > 1.5 * min(grid), "negative control: by single faults alone"


def test_measured_factors_are_ratios_of_paired_differences_and_noise_counts_its_error() -> None:
    memories = two_memories()
    choice = memories.choice([np.full(2, 0.02), np.full(2, 0.3)], [False, False])
    off = np.array([-1.0, 1.0, -1.0, 1.0])

    def losses(other: MemoryChoice) -> np.ndarray:
        return 7.0 + off + 2.0 * other.damage

    assert measured_factors(memories, choice, losses, here=losses(choice), share=0.0) == pytest.approx([2.0, 2.0], rel=1e-9)
    noise = measured_factors(memories, choice, lambda _: 3.0 * off, here=np.zeros(4), share=0.0)
    se = 3.0 * off.std(ddof=1) / 2.0
    assert noise == pytest.approx(np.clip([se / 1.0, se / 1.5], 1.0 / MOST_CHANGE, MOST_CHANGE), rel=1e-3)


def test_within_tolerance_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits as with the refresh off, and nothing is sampled."""
    plan = plan_of("sram_14nm")
    budget = 0.9 * power_of(plan)
    monkeypatch.setattr(refreshing, "monte_carlo", None)
    found = answer(plan, power_budget_w=budget)
    monkeypatch.setattr(refreshing, "TOL_REL", np.inf)
    alone = answer(plan, power_budget_w=budget)
    assert found.design is not None
    assert alone.design is not None
    assert (found.mse, found.design.digest, found.notes) == (alone.mse, alone.design.digest, alone.notes)
    assert not any("anew" in note for note in found.notes)


def sampled(plan: Plan, design: Design, n: int) -> float:
    """Return the MSE on the images optimized on, by trials of their own seed."""
    return monte_carlo(plan.with_design(design), IMAGES, seed=91, rel_error=1e-9, max_trials=n, control_variate=False).mse


def both(plan: Plan, monkeypatch: pytest.MonkeyPatch, **budget: object) -> tuple[DesignReport, DesignReport]:
    """Return the answer by single faults alone, and the refreshed one."""
    with monkeypatch.context() as patch:
        patch.setattr(refreshing, "TOL_REL", np.inf)
        alone = answer(plan, **budget)
    return alone, answer(plan, **budget)


def brute_force(plan: Plan, design: Design, budget_w: float) -> float:
    """Return the least error on a grid of error rates of five memories, that of the sixth from the budget."""
    sites = {(s.part, s.layer): s for s in sites_of(plan)}
    law, full = sites["weights", "fc1"].memory.law, {name: s.bit_w * s.memory.word.n_bits for name, s in sites.items()}
    names = (("weights", "conv1"), ("activations", "conv1"), ("weights", "conv2"), ("activations", "conv2"), ("activations", "fc1"))
    axes = (0.1, 0.4999), (0.1, 0.4999), np.geomspace(0.01, 0.3, 6), np.geomspace(3e-3, 0.2, 6), np.geomspace(1e-4, 2e-3, 3)
    rest = budget_w - power_of(plan.with_design(design))
    for name in sites:
        rest += full[name] * float(law.energy_rel(np.asarray(design.memory_p[name[0]][name[1]])))
    found = []
    for rates in product(*axes):
        left = (rest - sum(full[name] * float(law.energy_rel(np.asarray(p))) for name, p in zip(names, rates))) / full["weights", "fc1"]
        if law.energy_rel(np.asarray(0.1)) < left < law.energy_rel(np.asarray(1e-4)):
            p: dict[str, dict[str, float | tuple[float, ...]]] = {"weights": {"fc1": float(law.error_rate(left))}, "activations": {}}
            for (part, layer), rate in zip(names, rates):
                p[part][layer] = float(rate)
            found.append((sampled(plan, replace(design, memory_p=p), 32), replace(design, memory_p=p)))
    assert len(found) > 50
    best = min(found, key=lambda pair: pair[0])[1]
    assert power_of(plan.with_design(best)) == pytest.approx(budget_w, rel=1e-4)
    return sampled(plan, best, 300)


@pytest.mark.slow
def test_a_refreshed_design_is_close_to_brute_force_where_single_faults_are_far(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of("sram_14nm")
    budget = 0.65 * power_of(plan)
    alone, found = both(plan, monkeypatch, power_budget_w=budget)
    assert alone.design is not None
    assert found.design is not None
    assert power_of(plan.with_design(found.design)) == pytest.approx(budget, rel=1e-3)
    best, first, refreshed = brute_force(plan, found.design, budget), *(sampled(plan, r.design, 300) for r in (alone, found) if r.design)
    assert refreshed < 1.1 * best
    assert first > 1.3 * best, "negative control: by single faults alone"
    assert found.mse == pytest.approx(refreshed, rel=0.1)
    assert alone.mse != pytest.approx(first, rel=0.5), "negative control: what the linear model said of its design"
    note = next(note for note in found.notes if "anew" in note)
    assert f"{found.mse:.4g} is predicted at this design" in note


@pytest.mark.slow
def test_an_error_budget_is_met_with_less_power_where_single_faults_do_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Single faults overestimate here, so that their design takes power that is not needed."""
    plan = plan_of("sram_14nm")
    alone, found = both(plan, monkeypatch, mse_budget=440.0)
    assert found.design is not None
    assert alone.design is not None
    first, refreshed = (sampled(plan, design, 300) for design in (alone.design, found.design))
    assert found.mse == pytest.approx(refreshed, rel=0.1)
    assert refreshed < 1.05 * 440.0
    assert first < 0.8 * refreshed, "negative control: by single faults alone, much of the budget is left unused"
    assert (found.read_power_w or 0.0) < 0.97 * (alone.read_power_w or 0.0)
