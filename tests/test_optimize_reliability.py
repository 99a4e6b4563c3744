"""Reverse water-filling: against SLSQP, closed forms, all partitions into domains, and all discrete choices."""

from itertools import combinations, product

import numpy as np
import pytest
from scipy.optimize import minimize

from accelsim.optimizer.reliability import (
    BARE,
    Allocation,
    Option,
    allocate,
    allocate_domains,
    allocate_energy,
    allocate_menu,
    is_convex,
    menu,
)
from devices.base.errors import InfeasibleError, SpecError
from devices.ecc import Secded
from devices.reliability import Exponential, ExponentialPublished, FixedPoint, Sram14nm
from devices.reliability_law import ReliabilityLaw
from devices.reliability_table import Tabulated
from devices.word_format import WordFormat, square_damage

LAWS: list[ReliabilityLaw] = [Exponential(), ExponentialPublished(), Sram14nm()]
W = np.array([100.0, 20.0, 300.0, 5.0, 60.0, 150.0])
S = np.array([1.0, 3.0, 0.2, 40.0, 0.0, 2.5])
BINARY = WordFormat(coding="binary", n_bits=1)


def slsqp(law: ReliabilityLaw, budget: float) -> float:
    """Least energy by SLSQP over ln p, from the best uniform rate."""
    low, high = np.log(law.bounds[0]), np.log(0.5 * (1 - 1e-9))
    found = minimize(
        lambda x: W @ law.energy_rel(np.exp(np.clip(x, low, high))) / W.sum(),
        np.full(W.size, np.log(budget / S.sum())),
        bounds=[(low, high)] * W.size,
        constraints={"type": "ineq", "fun": lambda x: 1.0 - S @ np.exp(x) / budget},
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 1000},
    )
    assert found.success
    return float(found.fun * W.sum())


@pytest.mark.parametrize("budget", [1e-3, 0.05, 1.0])
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.kind)
def test_the_allocation_is_slsqp_s_optimum(law: ReliabilityLaw, budget: float) -> None:
    found = allocate(law, weight=W, damage=S, damage_budget=budget)
    assert found.damage == pytest.approx(budget, rel=1e-9)
    assert found.energy == pytest.approx(slsqp(law, budget), rel=1e-6)
    assert found.bound == pytest.approx(found.energy, rel=1e-9)
    uniform = float(W @ law.energy_rel(np.full(W.size, budget / S.sum())))
    assert found.energy < 0.99 * uniform, "the negative control: one rate for all takes more"


def test_the_exponential_s_optimum_is_its_closed_form() -> None:
    """p = w/(a m s) where within bounds; halving the damage costs ln 2/a for every layer that is free."""
    law = Exponential()
    found = allocate(law, weight=W, damage=S, damage_budget=0.1)
    free = (found.error_rate > law.bounds[0] * 1.001) & (found.error_rate < 0.499)
    assert free.sum() == 5
    np.testing.assert_allclose(found.error_rate[free], (W / (12.8 * found.multiplier * np.where(S > 0.0, S, 1.0)))[free], rtol=1e-9)
    assert found.error_rate[4] == pytest.approx(0.5), "what does no damage is at the largest rate"
    halved = allocate(law, weight=W, damage=S, damage_budget=0.05)
    assert halved.energy - found.energy == pytest.approx(W[free].sum() * np.log(2.0) / 12.8, rel=1e-6)


def test_higher_bits_get_a_quarter_of_the_error_rate() -> None:
    """p_j ~ 4^-j, and each higher bit takes 2 ln 2/a = 0.108 more of full energy, as published."""
    word = WordFormat(coding="twos_complement", n_bits=6)
    found = allocate(Exponential(), weight=np.ones((3, 1)), damage=np.array([[1.0], [2.0], [4.0]]) * square_damage(word), damage_budget=0.5)
    assert found.error_rate.shape == (3, 6)
    np.testing.assert_allclose(found.error_rate[:, 1:] / found.error_rate[:, :-1], 0.25, rtol=1e-6)
    np.testing.assert_allclose(np.diff(found.energy_rel, axis=1), 0.108, atol=5e-4)
    np.testing.assert_allclose(found.error_rate[0] / found.error_rate[1], 2.0, rtol=1e-6)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.kind)
def test_least_damage_for_an_energy_is_the_same_curve(law: ReliabilityLaw) -> None:
    primal = allocate(law, weight=W, damage=S, damage_budget=0.02)
    dual = allocate_energy(law, weight=W, damage=S, energy_budget=primal.energy)
    assert dual.damage == pytest.approx(0.02, rel=1e-6)
    np.testing.assert_allclose(dual.error_rate, primal.error_rate, rtol=1e-6)


def test_the_multiplier_is_the_price_of_damage() -> None:
    for law in LAWS:
        found, more = (allocate(law, weight=W, damage=S, damage_budget=d) for d in (0.02, 0.02002))
        assert (found.energy - more.energy) / 2e-5 == pytest.approx(found.multiplier, rel=1e-3)


def best_partition(law: ReliabilityLaw, budget: float, k: int) -> float:
    """Least energy over all set partitions of the layers into k domains at most."""
    best = np.inf
    for labels in product(range(k), repeat=W.size):
        groups = np.array(labels)
        w, s = (np.bincount(groups, part, k) for part in (W, S))
        used = w > 0.0
        best = min(best, allocate(law, weight=w[used], damage=s[used], damage_budget=budget).energy)
    return best


@pytest.mark.parametrize("law", [Exponential(), Sram14nm()], ids=lambda law: law.kind)
def test_domains_are_the_best_of_all_partitions(law: ReliabilityLaw) -> None:
    for k in (1, 2):
        found = allocate_domains(law, weight=W, damage=S, damage_budget=0.02, n_domains=k)
        assert len(np.unique(found.error_rate)) <= k
        assert found.energy == pytest.approx(best_partition(law, 0.02, k), rel=1e-6)
        assert found.bound <= found.energy * (1.0 + 1e-9)


def test_three_domains_are_the_best_runs_and_more_domains_never_cost_more() -> None:
    law, order = Sram14nm(), np.argsort(S / W)
    best = np.inf
    for cuts in combinations(range(1, 6), 2):
        groups = np.split(order, cuts)
        w, s = (np.array([part[group].sum() for group in groups]) for part in (W, S))
        best = min(best, allocate(law, weight=w, damage=s, damage_budget=0.05).energy)
    found = allocate_domains(law, weight=W, damage=S, damage_budget=0.05, n_domains=3)
    assert found.energy == pytest.approx(best, rel=1e-9)
    energies = [allocate_domains(law, weight=W, damage=S, damage_budget=0.05, n_domains=k).energy for k in range(1, 8)]
    assert np.all(np.diff(energies) <= 1e-9 * energies[0])
    assert energies[-1] == pytest.approx(allocate(law, weight=W, damage=S, damage_budget=0.05).energy, rel=1e-9)


def with_or_without(law: ReliabilityLaw, rates: np.ndarray) -> tuple[Allocation, Allocation]:
    code = Option(stored_rel=1.125, left_rate=lambda p: float(Secded().residual_rates(BINARY, p)[0]))
    both, bare = (menu(law, rates, options=options) for options in ((BARE, code), (BARE,)))
    budget = float(1e-5 * S.sum())
    found, without = (allocate_menu(m, weight=W, damage=S, damage_budget=budget) for m in (both, bare))
    return found, without


def test_a_code_pays_under_the_exponential_law_and_not_on_measured_cells() -> None:
    """The published table: at a rate of 1e-4 as stored a code pays under both laws, from 1e-3 on under the exponential only."""
    rates = np.geomspace(4e-6, 0.49, 300)
    found, without = with_or_without(Exponential(), rates)
    assert found.energy < 0.95 * without.energy
    assert (found.choice[S > 0.0] == 1).any()
    measured, bare = with_or_without(Sram14nm(), rates)
    assert measured.energy <= bare.energy
    assert 1.0 - measured.energy / bare.energy < 0.25 * (1.0 - found.energy / without.energy), "the curve decides the architecture"


def test_a_menu_of_many_rates_comes_to_the_continuous_optimum() -> None:
    law = Exponential()
    found = allocate_menu(menu(law, np.geomspace(*law.bounds, 4000)), weight=W, damage=S, damage_budget=0.02)
    exact = allocate(law, weight=W, damage=S, damage_budget=0.02)
    assert found.bound - 1e-9 <= exact.energy * (1.0 + 1e-4)
    assert exact.energy <= found.energy * (1.0 + 1e-9) <= exact.energy * 1.001
    assert found.damage <= 0.02


def test_few_voltages_are_chosen_within_the_proven_gap_of_all_choices() -> None:
    law, rates = Sram14nm(), np.array([1e-6, 1e-4, 5e-3, 5e-2, 0.3])
    choices = menu(law, rates)
    assert choices.left_rate.size == rates.size, "a convex law's points are all on its hull"
    for budget in (1e-3, 0.02, 0.5, 5.0):
        best = min(
            float(W @ law.energy_rel(p))
            for p in (rates[list(c)] for c in product(range(5), repeat=W.size))
            if S @ p <= budget
        )  # fmt: skip
        found = allocate_menu(choices, weight=W, damage=S, damage_budget=budget)
        assert found.damage <= budget * (1.0 + 1e-12)
        assert found.bound <= best * (1.0 + 1e-9)
        assert best <= found.energy * (1.0 + 1e-9)
        assert found.energy - best <= found.energy - found.bound + 1e-9
        assert found.energy < 1.08 * best


def test_a_law_that_is_not_convex_is_for_menus() -> None:
    law = Tabulated(
        voltages_rel=(0.7, 0.8, 0.9, 1.0), energies_rel=(0.1, 0.6, 0.65, 1.0), error_rates_p=(0.4, 0.2, 0.1, 1e-3),
        energy_reference="energy 1.0 is x", source="x",
    )  # fmt: skip
    assert not is_convex(law)
    with pytest.raises(SpecError, match="use allocate_menu"):
        allocate(law, weight=W, damage=S, damage_budget=1.0)
    hull = menu(law, np.geomspace(*law.bounds, 400))
    assert np.all(np.diff(np.diff(hull.energy_rel) / np.diff(hull.left_rate)) > 0.0)
    assert allocate_menu(hull, weight=W, damage=S, damage_budget=1.0).damage <= 1.0


def test_what_cannot_be_is_refused_with_the_floor() -> None:
    with pytest.raises(InfeasibleError, match="the least damage is"):
        allocate(Exponential(), weight=W, damage=S, damage_budget=1e-5)
    with pytest.raises(InfeasibleError, match="the least is"):
        allocate_energy(Sram14nm(), weight=W, damage=S, energy_budget=1.0)
    with pytest.raises(InfeasibleError, match="the least damage is"):
        allocate_menu(menu(Exponential(), np.array([1e-3, 1e-2])), weight=W, damage=S, damage_budget=1e-3)
    with pytest.raises(SpecError, match="use allocate_menu"):
        allocate(FixedPoint(error_rate_p=1e-3, energy_reference="energy 1.0 is x", source="x"), weight=W, damage=S, damage_budget=1.0)
    with pytest.raises(SpecError, match="weight, damage"):
        allocate(Exponential(), weight=-W, damage=S, damage_budget=1.0)
    with pytest.raises(SpecError, match="n_domains"):
        allocate_domains(Exponential(), weight=W, damage=S, damage_budget=1.0, n_domains=0)
    loose = allocate(Exponential(), weight=W, damage=S, damage_budget=1e9)
    assert loose.multiplier == 0.0
    np.testing.assert_allclose(loose.error_rate, 0.5)
