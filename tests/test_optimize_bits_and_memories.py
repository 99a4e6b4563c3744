"""Scales, converter bits and memories under one multiplier: against every combination of bits, each with its own best memories."""

from functools import cache
from itertools import product

import numpy as np
import pytest

from accelsim.optimizer.bits import BitTable, bit_table
from accelsim.optimizer.coefficients import Coefficients
from accelsim.optimizer.memories import Answer, MemoryChoice, best_memories, price_range
from accelsim.optimizer.optimize import optimize
from accelsim.optimizer.problem import Infeasible
from accelsim.optimizer.search import Question, Search
from accelsim.placement import Plan
from accelsim.sampling.monte_carlo import monte_carlo
from tests.digits import digits_plan
from tests.test_optimize_bits import ADC
from tests.test_optimize_memories import HELD_OUT, IMAGES, VALUES, power_of

BITS = (4, 5, 6, 7, 8)


@cache
def plan() -> Plan:
    return digits_plan("cnn", *VALUES[:4], *ADC, error_rel=0.001)


@cache
def tables() -> tuple[Search, BitTable, Coefficients]:
    question = Question(power_budget_w=1.0, mse_budget=None, per="layer", yield_p=None, memories="layer")
    search = Search(plan(), IMAGES, question=question, seed=3, output=None, reference="float")
    search.weigh_memories()
    return search, bit_table(search.plan, search.graph, IMAGES, BITS), search.terms(search.plan, 1.0)


def least(choice: tuple[int, ...], *, held: MemoryChoice | None = None) -> float:
    """Return the least MSE with converters of these bits: memories at their own best, or held."""
    search, table, terms = tables()
    assert search.memories is not None
    memories, taken = search.memories, search.memories.present.power_w
    now, (mse, power) = table.totals([len(BITS) - 1] * len(table.layers)), table.totals(choice)
    moved = terms.problem.moved(mse - now[0], power - now[1])

    def value(damage: float, power_w: float) -> Answer | Infeasible:
        return search._value(terms, moved.moved(damage, power_w - taken))

    if held is not None:
        found = value(held.damage, held.power_w)
        return np.inf if isinstance(found, Infeasible) else found[0]
    best = best_memories(memories, value, 0, prices=price_range(memories))
    return np.inf if isinstance(best, Infeasible) else best[1][0]


@pytest.mark.slow
@pytest.mark.parametrize(("share", "worse"), [(0.7, 5.0), (0.8, 1.5)])
def test_bits_and_memories_are_the_best_of_all_combinations(share: float, worse: float) -> None:
    """125 combinations of three layers' bits, each with its best memories and scales; choosing in turn is `worse` times that or more."""
    search, table, terms = tables()
    search.question = Question(power_budget_w=share * power_of(plan()), mse_budget=None, per="layer", yield_p=None, memories="layer")
    values = {choice: least(choice) for choice in product(range(len(BITS)), repeat=3)}
    best, start = min(values.values()), search.plan
    search.choose_bits((BITS[0], BITS[-1]))
    search.plan, found = start, search.choice
    assert found is not None
    assert values[tuple(BITS.index(found.bits[name]) for name in table.layers)] == pytest.approx(best, rel=1e-3)
    assert found.mse == pytest.approx(best, rel=5e-3), "what the curve of memories says is what memories do"
    search.with_memories(terms)
    in_turn = min(values, key=lambda choice: least(choice, held=search.memory_choice))
    assert values[in_turn] > worse * best, "the negative control: bits for the memories that are best with all converters at their largest"


@pytest.mark.slow
def test_a_design_of_all_three_beats_any_two_and_is_near_what_monte_carlo_says() -> None:
    """Converters of few bits: the prediction is 15 % above Monte-Carlo here, since noise dithers what each rounds."""
    budget = 0.75 * power_of(plan())
    asked = {"all": {"adc_bits": (4, 8)}, "no bits": {}, "no memories": {"adc_bits": (4, 8), "memories": "fixed"}}
    found = {
        name: optimize(plan(), IMAGES, verify=HELD_OUT, seed=3, power_budget_w=budget, mc_max_trials=0, **more)  # type: ignore[arg-type]
        for name, more in asked.items()
    }
    errors = {name: np.inf if report.mse is None else report.mse for name, report in found.items()}
    assert errors["all"] < 0.98 * min(errors["no bits"], errors["no memories"])
    design = found["all"].design
    assert design is not None
    trials = monte_carlo(plan().with_design(design), HELD_OUT, seed=9, rel_error=0.03, max_trials=600)
    assert trials.mse * 0.95 < (found["all"].mse_verify or 0.0) < trials.mse * 1.2 + 3.0 * trials.mse_se
