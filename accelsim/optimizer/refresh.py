"""Damages of memories measured anew at a design: where faults meet, what one memory's faults do depends on the others'.

Single faults say what a wrong bit does to a network without others. Where a design's error rates are high that is not what it does there:
errors saturate, or meet in nonlinearities. Then each memory i is sampled with its errors and with fewer, the others at the design,

    r_i = (E(p) - E(p, p_i -> h p_i)) / (D_i(p_i) - D_i(h p_i)),      s_i -> s_i r_i^DAMPING                                    (1)

E being the MSE of trials, D the damage as it was; the optimizer solves again with these damages, to the same budget, and again at its
answer. All trials have the same random words, so that faults at one rate are among those at a higher one, and a difference is known far
better than either error. Of all designs, the first among them, the one with the least error in these trials is kept, if prediction agrees.
First h = 0, the secant over the whole range: where errors saturate the slope is near zero, and would never let a memory go back. Then, from
the best, h = 1/2, which is nearer to the slope, and with it to the condition of an optimum.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from accelsim.optimizer.coefficients import Coefficients
from accelsim.optimizer.common_scale import CommonSolution
from accelsim.optimizer.memories import MemoryChoice, MemoryProblem, Refreshed
from accelsim.optimizer.problem import Infeasible, Solution
from accelsim.optimizer.search import Search
from accelsim.prediction.predict import predict
from accelsim.report.records import ErrorReport
from accelsim.sampling.monte_carlo import monte_carlo

Floats = NDArray[np.float64]
Losses = Callable[[MemoryChoice], Floats]
TOL_REL = 0.1
"""How far the linear error may be off, beside what the prediction says of its own error."""
SHARES = 0.0, 0.5
"""h of (1), in turn."""
DAMPING, MAX_ROUNDS, PATIENCE = 0.7, 8, 2
"""Of (1); solutions at most for each h; how many may in turn be no better."""
MOST_CHANGE = 16.0
"""How far a damage is believed to move in a round."""
TOL_BUDGET = 0.05
"""How far an error may be above its budget, as these trials know it, and count as within."""
N_TRIALS, MAX_PRODUCTS = (32, 96), 2e11
"""Least and most trials of a memory; multiply-adds of a round."""
OWN_TRIALS = 0x5EED_C0DE_0000_0007
"""Turns a seed into the one of these trials."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Found:
    """One design: the answer, what it rests on, and the losses of its trials."""

    solution: Solution | CommonSolution
    terms: Coefficients
    memories: MemoryProblem
    choice: MemoryChoice
    offset: float
    losses: Floats


def refresh(
    search: Search, found: Solution | CommonSolution, terms: Coefficients
) -> tuple[Solution | CommonSolution, Coefficients]:
    """Return the answer with damages measured at the design where those of single faults are off there, else what was given.

    The search is left at the memories of the answer, and says in `refreshed` what was done. `terms` are those without memories.
    """
    if search.memories is None or search.memory_choice is None or search.question.memories == "fixed":
        return found, terms
    before = _predicted(search, found, terms)
    if abs(before.mse - found.mse) <= (TOL_REL + before.rel_error_estimate) * before.mse:
        return found, terms
    first = _found(search, found, terms)
    best, n_rounds = _best(search, first, before.mse)
    _back_to(search, best)
    after = before if best is first else _predicted(search, best.solution, best.terms)
    if _merit(search, best, after.mse) >= _merit(search, first, before.mse):
        best, after = first, before
        _back_to(search, first)
    search.refreshed = Refreshed(n_rounds=n_rounds, linear=found.mse, before=before.mse, after=after.mse)
    search.memory_offset = best.offset + after.mse - best.solution.mse
    return replace(best.solution, mse=after.mse), best.terms


def _best(search: Search, first: _Found, mse: float) -> tuple[_Found, int]:
    """Return the best design of a few rounds of (1), and how many there were; `mse` is what is predicted at the first."""

    def merit(one: _Found) -> tuple[float, float]:
        return _merit(search, one, mse * float(one.losses.mean() / first.losses.mean()))

    best, n_rounds = first, 0
    for share in SHARES:
        now, in_vain = best, 0
        for _ in range(MAX_ROUNDS):
            _back_to(search, now)
            moved = _solved_again(search, now, mse * float(now.losses.mean() / first.losses.mean()), share=share)
            n_rounds += 1
            if moved is None:
                break
            now, better = moved, merit(moved) < merit(best)
            best, in_vain = (now, 0) if better else (best, in_vain + 1)
            if in_vain == PATIENCE:
                break
    return best, n_rounds


def _solved_again(search: Search, now: _Found, mse: float, *, share: float) -> _Found | None:
    """Return the answer with damages measured at a design whose error is `mse`; None where the budget is then out of reach."""
    factors = measured_factors(now.memories, now.choice, lambda choice: _losses(search, now, choice), here=now.losses, share=share)
    search.memories = now.memories.with_damages(factors**DAMPING)
    scales_mse = now.solution.mse - now.choice.damage - now.offset
    search.memory_offset = mse - scales_mse - search.memories.choice(now.choice.rates, now.choice.coded).damage
    solution, terms = search.solved_at(now.solution, now.terms)
    return None if isinstance(solution, Infeasible) else _found(search, solution, terms)


def measured_factors(memories: MemoryProblem, choice: MemoryChoice, losses: Losses, *, here: Floats, share: float) -> Floats:
    """Return r of (1) for h = `share`, `(n_sites,)`: `losses` of a choice are of the same trials as `here`, those at the design.

    A difference counts one standard error at least: what is less is noise, and below zero there is no damage.
    """
    found = np.ones(len(memories.sites))
    for i in range(len(found)):
        fewer = _with_fewer(memories, choice, i, share)
        linear = choice.damage - fewer.damage
        if linear > 0.0:
            off = here - losses(fewer)
            found[i] = max(float(off.mean()), float(off.std(ddof=1)) / np.sqrt(len(off)), 1e-300) / linear
    return np.asarray(np.clip(found, 1.0 / MOST_CHANGE, MOST_CHANGE))


def _with_fewer(memories: MemoryProblem, choice: MemoryChoice, i: int, share: float) -> MemoryChoice:
    """Return the choice with a share of one site's error rates, at its law's least rate at least."""
    low = memories.sites[i].memory.law.bounds[0]
    rates = tuple(np.minimum(p, np.maximum(share * p, low)) if k == i else p for k, p in enumerate(choice.rates))
    return memories.choice(rates, choice.coded)


def _merit(search: Search, one: _Found, mse: float) -> tuple[float, float]:
    """Return what is to be least: the error; with a budget of errors, what is beyond it, then power."""
    budget = search.question.mse_budget
    return (mse, 0.0) if budget is None else (max(mse / budget, 1.0 + TOL_BUDGET), one.solution.power_w)


def _found(search: Search, solution: Solution | CommonSolution, terms: Coefficients) -> _Found:
    assert search.memories is not None  # there is nothing to refresh without
    assert search.memory_choice is not None
    found = _Found(
        solution=solution, terms=terms, memories=search.memories, choice=search.memory_choice, offset=search.memory_offset,
        losses=np.zeros(0),
    )  # fmt: skip
    return replace(found, losses=_losses(search, found, search.memory_choice))


def _back_to(search: Search, found: _Found) -> None:
    search.memories, search.memory_choice, search.memory_offset = found.memories, found.choice, found.offset


def _losses(search: Search, found: _Found, choice: MemoryChoice) -> Floats:
    """Return the losses of trials at a design, memories at another choice; the same random words at each call."""
    search.memory_choice = choice
    placed = search.faulty.with_design(search.design(found.solution, found.terms))
    search.memory_choice = found.choice
    products = len(search.samples) * sum(layer.n_products for layer in placed.layers) * (1 + len(choice.rates))
    n = int(np.clip(MAX_PRODUCTS / products, *N_TRIALS))
    trials = monte_carlo(
        placed, search.samples, seed=search.seed ^ OWN_TRIALS, rel_error=1e-9, max_trials=n, control_variate=False, output=search.output,
        reference=search.reference,
    )  # fmt: skip
    if len(trials.losses) < n:
        raise KeyboardInterrupt
    return trials.losses


def _predicted(search: Search, solution: Solution | CommonSolution, terms: Coefficients) -> ErrorReport:
    placed = search.faulty.with_design(search.design(solution, terms))
    return predict(placed, search.samples, seed=search.seed, output=search.output, reference=search.reference, attribution=False)
