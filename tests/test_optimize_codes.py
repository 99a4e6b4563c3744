"""Codes chosen by price: against all choices of codes, and against the closed form, under each law."""

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest

from accelsim.optimizer.closed_form import minimize_mse
from accelsim.optimizer.memories import Answer, MemoryChoice, MemoryProblem, best_memories, price_range
from accelsim.optimizer.optimize import optimize
from accelsim.optimizer.problem import Infeasible, Problem
from devices.break_even import Protected, indifferent_rate
from devices.ecc import Secded
from devices.reliability import Exponential, ExponentialPublished, Sram14nm
from devices.reliability_law import ReliabilityLaw
from tests.test_optimize_all_memories import HELD_OUT, IMAGES, plan_of, power_of, sites_of
from tests.test_optimize_memories import site

N_PRICES = 250
LAWS = [Exponential(), ExponentialPublished(), Sram14nm()]
SCALES = Problem(variance_siemens2=np.array([2.0]), linear_w_per_siemens=np.array([1.0]), c_min_siemens=np.array([1e-3]),
                 c_max_siemens=np.array([1e3]))  # fmt: skip
NONE = Problem(variance_siemens2=np.zeros(0), linear_w_per_siemens=np.zeros(0), c_min_siemens=np.zeros(0), c_max_siemens=np.zeros(0))


def within(problem: Problem, budget: float, damage: float, power_w: float) -> Answer | Infeasible:
    found = minimize_mse(problem.moved(damage, power_w), budget)
    return found if isinstance(found, Infeasible) else (found.mse, found.power_w)


@cache
def points_of(memories: MemoryProblem) -> np.ndarray:
    """Return what each site takes and damages without a code and with one, at many prices: `(2, 2, N_PRICES, n_sites)`."""
    found = np.zeros((2, 2, N_PRICES, len(memories.sites)))
    for has in (0, 1):
        for n, price in enumerate(np.geomspace(*price_range(memories), N_PRICES)):
            rates = memories.at(float(price), coded=[bool(has)] * len(memories.sites)).rates
            for i, (one, p) in enumerate(zip(memories.sites, rates)):
                memory = one.at(p, coded=bool(has))
                left = memory.ecc.residual_rates(memory.word, p) if isinstance(memory.ecc, Secded) else p
                found[:, has, n, i] = one.power_w(memory), float(one.damage @ left)
    return found


def least_of_all(memories: MemoryProblem, problem: Problem, budget: float) -> tuple[float, tuple[bool, ...]]:
    """Return the least MSE over every choice of codes: sites added up at many prices, and between prices by logarithms."""
    taken, done = points_of(memories)
    best: tuple[float, tuple[bool, ...]] = (np.inf, ())
    places = np.arange(len(memories.sites))
    fine = np.linspace(0.0, N_PRICES - 1.0, 40 * N_PRICES)
    for coded in product((False, True), repeat=len(memories.sites)):
        pick = np.array(coded, int)
        power, damage = (of[pick, :, places].sum(axis=0) for of in (taken, done))
        power = np.interp(fine, range(N_PRICES), power)
        damage = np.exp(np.interp(fine, range(N_PRICES), np.log(np.maximum(damage, 1e-300))))
        left = budget - power
        mse = damage + 2.0 / np.maximum(left, 1e-12) ** 2 if problem.n_groups else damage
        best = min(best, (float(np.where(left > 0.0, mse, np.inf).min()), coded))
    return best


def chosen(memories: MemoryProblem, problem: Problem, budget: float) -> tuple[MemoryChoice, Answer]:
    found = best_memories(memories, lambda damage, power: within(problem, budget, damage, power), 0, prices=price_range(memories))
    assert not isinstance(found, Infeasible)
    return found


@cache
def three_sites(law: ReliabilityLaw) -> MemoryProblem:
    damages = ((3.0, 1.0, "a"), (600.0, 0.5, "b"), (4e4, 0.3, "c"))
    return MemoryProblem([site([d / 8.0] * 8, w / 8.0, law, name) for d, w, name in damages], per_bit=False, codes=True)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.kind)
@pytest.mark.parametrize("share", [0.7, 0.85, 1.02])
@pytest.mark.parametrize("problem", [SCALES, NONE], ids=["with scales", "memories alone"])
def test_codes_are_those_of_the_best_of_all_choices(law: ReliabilityLaw, share: float, problem: Problem) -> None:
    memories = three_sites(law)
    budget = share * 1.8 + (2.0 if problem.n_groups else 0.0)
    best, coded = least_of_all(memories, problem, budget)
    choice, (mse, power_w) = chosen(memories, problem, budget)
    assert mse == pytest.approx(best, rel=3e-3)
    assert power_w <= budget * (1.0 + 1e-9)
    assert choice.coded == coded


@pytest.mark.parametrize(("data_bits", "logic_rel", "off"), [(64, 0.0, 0.08), (16, 0.0, 0.02), (64, 0.05, 0.03)])
def test_a_code_comes_at_the_price_of_the_closed_form(data_bits: int, logic_rel: float, off: float) -> None:
    """One site; its bare rate T = price w/(a S) says where the code comes: below indifferent_rate, and nowhere else."""
    law, code = Exponential(), Secded(data_bits=data_bits)
    bare = site([100.0 / 8.0] * 8, 1.0 / 8.0, law)
    one = replace(bare, memory=replace(bare.memory, ecc=code), logic_w=logic_rel)
    rate = indifferent_rate(Protected(law=law, ecc=code, word=one.memory.word, logic_rel=logic_rel))
    assert rate is not None
    memories = MemoryProblem([one], per_bit=False, codes=True)
    for factor, coded in ((0.05, True), (1.0 - off, True), (1.0 + off, False), (5.0, False)):
        price = factor * rate * 12.8 * 100.0
        found = memories.at(price)
        assert found.coded == (coded,), factor
        if coded:
            assert found.power_w == pytest.approx(
                one.bit_w * code.read_bits(one.memory.word, law.energy_rel(found.rates[0])) + logic_rel, rel=1e-12
            )


@pytest.mark.slow
def test_a_code_that_a_spec_has_is_dropped_where_its_logic_costs_too_much() -> None:
    more = tuple(f"memory.{part}.ecc.kind=secded" for part in ("weights", "activations"))
    cheap, dear = (
        plan_of("exponential", *more, *(f"memory.{part}.decode_energy_j={e} pJ" for part in ("weights", "activations")))
        for e in (0.001, 0.4)
    )
    found = {}
    for name, plan in (("cheap", cheap), ("dear", dear)):
        budget = 0.85 * power_of(plan_of("exponential"))
        report = optimize(plan, IMAGES, verify=HELD_OUT, seed=3, power_budget_w=budget, mc_max_trials=0, memory_codes=True)
        assert report.design is not None
        assert power_of(plan.with_design(report.design)) == pytest.approx(budget, rel=1e-3)
        found[name] = sum(len(layers) for layers in report.design.memory_secded.values())
    assert found["cheap"] > 0
    assert found["dear"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("law", ["exponential", "sram_14nm"])
def test_a_network_s_codes_are_the_best_of_all_sixty_four(law: str) -> None:
    plan = plan_of(law)
    budget = 0.86 * power_of(plan)
    memories = MemoryProblem(sites_of(plan), per_bit=False, codes=True)
    assert len(memories.sites) == 6
    report = optimize(plan, IMAGES, verify=HELD_OUT, seed=3, power_budget_w=budget, mc_max_trials=0, memory_codes=True)
    bare = optimize(plan, IMAGES, verify=HELD_OUT, seed=3, power_budget_w=budget, mc_max_trials=0)
    assert report.design is not None
    assert report.mse is not None
    assert bare.mse is not None
    best, coded = least_of_all(memories, NONE, budget)
    choice, (mse, _) = chosen(memories, NONE, budget)
    assert mse == pytest.approx(best, rel=3e-3)
    assert choice.coded == coded
    named = {(part, layer) for part, layers in report.design.memory_secded.items() for layer in layers}
    assert named == {(s.part, s.layer) for s, has in zip(memories.sites, coded) if has}
    if law == "exponential":
        assert len(named) >= 1
        assert report.mse < bare.mse
    else:
        assert report.mse <= bare.mse * (1.0 + 1e-6)
