"""One question about the best design, searched: coefficients are refreshed until the answer stays where it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import stats

from accelsim.design import MAX_BITS, Design
from accelsim.optimizer.bits import BitChoice, bit_table, choose_bits
from accelsim.optimizer.closed_form import minimize_mse, minimize_power
from accelsim.optimizer.coefficients import Coefficients, coefficients
from accelsim.optimizer.common_scale import CommonSolution, common_solution
from accelsim.optimizer.memories import (
    MemoryChoice,
    MemoryCurve,
    MemoryProblem,
    Refreshed,
    as_design,
    best_memories,
    memory_sites,
    price_range,
)
from accelsim.optimizer.problem import Infeasible, Problem, Solution
from accelsim.placement import Plan
from accelsim.prediction.events import without_faults
from accelsim.prediction.predict import predict
from accelsim.prediction.question import Question as PredictionQuestion
from accelsim.report.records import TrialReport
from accelsim.response.linear import respond
from accelsim.response.probes import n_probes_for
from accelsim.response.target import Reference, graph_to_output, reference_outputs
from accelsim.sampling.monte_carlo import Progress, monte_carlo
from accelsim.sampling.programmings import Programmer
from devices.base.errors import SpecError
from workloads.network import Network
from workloads.operators.base import Array
from workloads.samples import Samples

Per = Literal["layer", "column", "network"]
Memories = Literal["fixed", "layer", "bit"]
MAX_REFRESH = 6
SETTLED = 2e-3
MAX_BACK = 3
"""How often a step is halved that leaves a model without an answer."""
OVER = 1.05
"""Power over its budget from which an answer that did not settle is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked: the budget, what has a scale of its own, and which memories move."""

    power_budget_w: float | None
    mse_budget: float | None
    per: Per
    yield_p: float | None
    memories: Memories = "fixed"
    memory_domains: int | None = None
    memory_codes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How Monte-Carlo checks a design; not at all with no trials."""

    rel_error: float
    max_trials: int
    threads: int | None
    checkpoint: str | Path | None
    progress: Progress | None


class Search:
    """One question on one plan: refreshes coefficients until the answer stays where it is."""

    def __init__(self, plan: Plan, samples: Samples, *, question: Question, seed: int, output: str | None, reference: Reference) -> None:
        self.samples, self.question, self.seed, self.output, self.reference = samples, question, seed, output, reference
        self.scale = "column" if question.per == "column" else plan.layers[0].site.mapping.scale
        self.faulty = plan.rescaled(self.scale)
        self.plan = without_faults(self.faulty)
        self.graph: Network = graph_to_output(plan.graph, output)
        self.wanted = reference_outputs(self.plan, self.graph, samples, reference)
        self.factor = 1.0
        self.choice: BitChoice | None = None
        self.memories: MemoryProblem | None = None
        self.memory_choice: MemoryChoice | None = None
        self.memory_offset = 0.0
        self.refreshed: Refreshed | None = None

    def weigh_memories(self) -> None:
        """Find what faults of the plan's memories do, and what they take."""
        if not self.faulty.has_memories:
            return
        response = respond(
            self.plan, self.graph, self.samples, seed=self.seed, n_probes=n_probes_for(self.wanted.shape[1], len(self.samples))
        )
        programmer = Programmer(self.plan, seed=self.seed)
        question = PredictionQuestion(
            plan=self.faulty, programmer=programmer, errors=(), graph=self.graph, samples=self.samples, seed=self.seed, wanted=self.wanted,
            tol_rel=0.05, reference=self.reference,
        )  # fmt: skip
        q = self.question
        sites = memory_sites(self.faulty, question, response)
        self.memories = MemoryProblem(sites, per_bit=q.memories == "bit", codes=q.memory_codes, fixed=q.memories == "fixed")
        if q.memories == "fixed":
            self.memory_choice = self.memories.present

    def choose_bits(self, limits: tuple[int, int]) -> None:
        """Move the plan to the converter bits with which the scales' optimum is best."""
        low, high = limits
        if not 1 <= low <= high <= MAX_BITS:
            raise SpecError(f"adc_bits: ({low}, {high}): need 1 <= least <= most <= {MAX_BITS}")
        table = bit_table(self.plan, self.graph, self.samples, range(low, high + 1))
        moves = self.memories is not None and self.question.memories != "fixed"
        terms = self.terms(self.plan, 1.0) if moves else self.with_memories(self.terms(self.plan, 1.0))
        present = {layer.name: layer.sense.adc.n_bits for layer in self.plan.layers if layer.sense.adc is not None}
        power, mse = self._budgets(terms)
        choice = choose_bits(
            table, terms.problem, present, power_budget_w=power, mse_budget=mse, solve=self._with_curve(terms) if moves else None
        )
        if isinstance(choice, Infeasible):  # the search says so, from the converters that take least or err least
            at = [0 if power is not None else len(table.bits) - 1] * len(table.layers)
            bits: Mapping[str, int] = {name: table.bits[n] for name, n in zip(table.layers, at)}
        else:
            self.choice, bits = choice, choice.bits
        layers = tuple(layer.with_adc_bits(bits[layer.name]) if layer.name in bits else layer for layer in self.plan.layers)
        self.plan = replace(self.plan, layers=layers)

    def _with_curve(self, terms: Coefficients) -> "Callable[[Problem], tuple[float, float] | Infeasible]":
        """Return what a problem comes to with the best scales and memories, whose trade-off is found once."""
        assert self.memories is not None  # they move
        curve, side = MemoryCurve(self.memories, self.memories.present.power_w), 0 if self.question.mse_budget is None else 1

        def solve(problem: Problem) -> "tuple[float, float] | Infeasible":
            return curve.best(lambda damage, power_w: self._value(terms, problem.moved(damage, power_w)), side)

        return solve

    def _value(self, terms: Coefficients, problem: Problem) -> "tuple[float, float] | Infeasible":
        found = self._solve_scales(replace(terms, problem=problem))
        return found if isinstance(found, Infeasible) else (found.mse, found.power_w)

    def terms(self, plan: Plan, factor: float) -> Coefficients:
        """Return the coefficients at a plan's design."""
        return coefficients(
            plan, self.graph, self.samples, reference=self.wanted, per=self.question.per, seed=self.seed, variance_factor=factor
        )

    def run(self) -> "tuple[Solution | CommonSolution | Infeasible, Coefficients, int]":
        """Return the answer, the coefficients it rests on, and how often they were refreshed.

        Refreshed at small scales, a model may leave no answer: noise grows from layer to layer, and takes power there. Then the step is
        halved; what is infeasible is so at every design tried, and its floor is the least power of them.
        """
        plan = before = self.plan
        terms = self.terms(plan, 1.0)
        least, n_back = terms, 0
        for n in range(MAX_REFRESH):
            found = self.solve(terms)
            if isinstance(found, Infeasible):
                if n == 0 or n_back == MAX_BACK:
                    return _with_floor(found, least.power_w), least, n
                n_back += 1
                plan = self._halfway(before, plan)
            else:
                moved = self.placed(found, terms)
                change = _largest_change(plan, moved)
                before, plan = plan, moved
                if n and change < SETTLED:
                    return found, terms, n
            terms = self.beyond_first_order(plan, self.terms(plan, 1.0))
            least = min(least, terms, key=lambda one: one.power_w)
        found, budget_w = self.solve(terms), self._budgets(terms)[0]
        if isinstance(found, Infeasible):
            return _with_floor(found, least.power_w), least, MAX_REFRESH
        if budget_w is not None and budget_w < least.power_w and self.terms(self.placed(found, terms), 1.0).power_w > OVER * budget_w:
            return Infeasible(at="power", floor=least.power_w, budget=budget_w), least, MAX_REFRESH
        return found, terms, MAX_REFRESH

    def _halfway(self, before: Plan, after: Plan) -> Plan:
        """Return the plan whose conductances are the geometric means of both."""
        used: dict[str, float | tuple[float, ...]] = {}
        for a, b in zip(before.layers, after.layers):
            if not a.is_digital:
                g = np.sqrt(np.asarray(a.site.g_used_siemens) * b.site.g_used_siemens)
                used[a.name] = tuple(map(float, g)) if self.question.per == "column" else float(g.max())
        return self.plan.with_design(
            Design(
                g_used_siemens=used, scale="column" if self.question.per == "column" else "layer", network_digest=self.plan.network.digest,
                accelerator_digest=self.plan.accelerator.digest, origin="a step halved",
            )
        )  # fmt: skip

    def solved_at(
        self, found: "Solution | CommonSolution", terms: Coefficients
    ) -> "tuple[Solution | CommonSolution | Infeasible, Coefficients]":
        """Return the answer of the present model with coefficients at an earlier answer, and these."""
        if terms.problem.n_groups:
            terms = self.terms(self.placed(found, terms), max(self.factor, 0.05))
        return self.solve(terms), terms

    def beyond_first_order(self, plan: Plan, terms: Coefficients) -> Coefficients:
        """Return coefficients scaled to the best closure's variance where first order is not good enough at this design."""
        report = predict(plan, self.samples, seed=self.seed, output=self.output, reference=self.reference, method="auto", attribution=False)
        if report.method == "adjoint":
            return terms
        variance = float(terms.response.variance)
        factor = (report.mse - _bias2(terms, self.wanted)) / variance if variance > 0.0 else 1.0
        self.factor = factor
        return self.terms(plan, max(factor, 0.05))

    def solve(self, terms: Coefficients) -> "Solution | CommonSolution | Infeasible":
        """Return the optimum of the present model, memories chosen with the scales."""
        return self._solve_scales(self.with_memories(terms))

    def with_memories(self, terms: Coefficients) -> Coefficients:
        """Return the terms with what memories take and damage at the choice that is best with these scales."""
        if self.memories is None:
            return terms
        if self.question.memories != "fixed":
            self.memory_choice = self._best_memories(self.memories, terms, self.memories.present.power_w)
        return self.at_choice(terms)

    def at_choice(self, terms: Coefficients) -> Coefficients:
        """Return the terms with what memories take and damage as they were chosen."""
        if self.memories is None:
            return terms
        now, choice = self.memories.present.power_w, self.memory_choice or self.memories.present
        return replace(terms, problem=terms.problem.moved(choice.damage + self.memory_offset, choice.power_w - now))

    def _best_memories(self, memories: MemoryProblem, terms: Coefficients, now: float) -> MemoryChoice | None:
        offset = self.memory_offset if self.question.mse_budget is not None else 0.0  # of errors alone it is a constant

        def value(damage: float, power_w: float) -> "tuple[float, float] | Infeasible":
            return self._value(terms, terms.problem.moved(damage + offset, power_w - now))

        found = best_memories(memories, value, 0 if self.question.mse_budget is None else 1, prices=price_range(memories))
        if isinstance(found, Infeasible):
            return memories.at(price_range(memories)[int(self.question.mse_budget is not None) - 1])
        choice, n = found[0], self.question.memory_domains
        return choice if n is None else memories.clustered(choice, n)

    def _solve_scales(self, terms: Coefficients) -> "Solution | CommonSolution | Infeasible":
        q = self.question
        if q.per == "network" and terms.problem.n_groups:
            return common_solution(terms, self._budgets(terms))
        power, mse = self._budgets(terms)
        return minimize_mse(terms.problem, power) if power is not None else minimize_power(terms.problem, mse or 0.0)

    def _budgets(self, terms: Coefficients) -> tuple[float | None, float | None]:
        """Return the budgets on the means, such that the asked share of chips meets the asked budget."""
        q = self.question
        if q.yield_p is None:
            return q.power_budget_w, q.mse_budget
        if q.power_budget_w is not None:
            return q.power_budget_w - float(stats.norm.ppf(q.yield_p)) * terms.power_sd_w, None
        assert q.mse_budget is not None  # exactly one budget is given
        sd, mean = terms.response.chip_sd(self.wanted), float(terms.response.variance) + _bias2(terms, self.wanted)
        if sd is None or sd <= 0.0 or mean <= 0.0:
            return None, q.mse_budget
        shape = (mean / sd) ** 2  # a gamma law with the chips' mean and spread: the MSE is a sum of squares
        return None, q.mse_budget / (float(stats.gamma.ppf(q.yield_p, shape)) / shape)

    def placed(self, found: "Solution | CommonSolution", terms: Coefficients) -> Plan:
        """Return the plan at the answer's conductances, memories as they were: what they take is counted from there."""
        if not terms.problem.n_groups:
            return self.plan
        return self.plan.with_design(replace(self.design(found, terms), memory_p={}, memory_secded={}))

    def design(self, found: "Solution | CommonSolution", terms: Coefficients) -> Design:
        """Return the answer as conductances of the largest weights."""
        c = np.zeros(terms.groups.n)
        c[terms.active] = found.c_siemens
        by_column = terms.groups.spread(c)
        used: dict[str, float | tuple[float, ...]] = {}
        for layer in self.plan.layers:
            if layer.is_digital:
                continue
            cell = layer.site.cell
            g = cell.g_min_siemens + by_column[layer.name] * layer.site.w_span
            g = np.where(layer.site.w_span > 0.0, np.clip(g, None, cell.g_max_siemens), cell.g_max_siemens)
            g = np.where(g > cell.g_min_siemens, g, cell.g_max_siemens)
            used[layer.name] = tuple(map(float, g)) if self.question.per == "column" else float(g.max())
        scale = "column" if self.question.per == "column" else self.scale
        if scale == "network" and len(set(used.values())) > 1:
            scale = "layer"
        rates, codes = ({}, {}) if self.memories is None or self.memory_choice is None else as_design(self.memories, self.memory_choice)
        return Design(
            g_used_siemens=used,
            scale=scale,
            memory_p=rates,
            memory_secded=codes,
            adc_bits={} if self.choice is None else dict(self.choice.bits),
            network_digest=self.plan.network.digest,  # type: ignore[arg-type]
            accelerator_digest=self.plan.accelerator.digest,
            origin=f"optimize per {self.question.per}, seed {self.seed}",
        )

    def sampled(self, placed: Plan, verify: Samples, sampling: Sampling) -> TrialReport | None:
        """Return what Monte-Carlo says of a design on samples that were not optimized on."""
        if not sampling.max_trials:
            return None
        return monte_carlo(
            placed, verify, seed=self.seed + 1, rel_error=sampling.rel_error, max_trials=sampling.max_trials, threads=sampling.threads,
            output=self.output, reference=self.reference, checkpoint=sampling.checkpoint, progress=sampling.progress,
        )  # fmt: skip


def _bias2(terms: Coefficients, wanted: Array) -> float:
    return float(np.mean((terms.response.mean_output - wanted) ** 2))


def _largest_change(before: Plan, after: Plan) -> float:
    pairs = [(a.site.g_used_siemens, b.site.g_used_siemens) for a, b in zip(before.layers, after.layers) if not a.is_digital]
    return max((float(np.max(np.abs(np.log(b / a)))) for a, b in pairs), default=0.0)


def _with_floor(found: Infeasible, least_w: float) -> Infeasible:
    """Return an infeasible answer whose floor of power is no more than what a design was seen to take."""
    return replace(found, floor=max(min(found.floor, least_w), found.budget)) if found.at == "power" else found
