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
from accelsim.optimizer.common_scale import CommonSolution, common_scale_within, common_solution
from accelsim.optimizer.memories import (
    MemoryChoice,
    MemoryCurve,
    MemoryProblem,
    Refreshed,
    as_design,
    best_memories,
    in_words,
    memory_sites,
    price_range,
)
from accelsim.optimizer.pareto import pareto
from accelsim.optimizer.problem import Infeasible, Problem, Solution
from accelsim.optimizer.tabulated import LEAST, N_GRID, Tabulated
from accelsim.placement import Plan
from accelsim.prediction.events import without_faults
from accelsim.prediction.predict import predict
from accelsim.prediction.question import Question as PredictionQuestion
from accelsim.report.design_report import Baseline, DesignReport
from accelsim.report.provenance import provenance_of
from accelsim.report.records import ErrorReport, TrialReport
from accelsim.response.linear import respond
from accelsim.response.probes import n_probes_for
from accelsim.response.target import Reference, graph_to_output, reference_outputs
from accelsim.sampling.monte_carlo import Progress, monte_carlo
from accelsim.sampling.programmings import Programmer
from devices.base.errors import SpecError
from devices.base.quantity import format_quantity
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
N_PARETO = 41


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

    # answers

    def table_design(self, found: Tabulated) -> Design:
        """Return an answer from the grid as a design."""
        return Design(
            g_used_siemens=dict(found.g_used_siemens),
            scale="layer" if self.scale == "network" else self.scale,  # type: ignore[arg-type]
            network_digest=self.plan.network.digest,
            accelerator_digest=self.plan.accelerator.digest,
            origin=f"optimize per {self.question.per} from a table, seed {self.seed}",
        )

    def table_report(
        self, found: Tabulated | Infeasible, placed: Plan, *, mc: TrialReport | None, held_out: ErrorReport | None, elapsed_s: float
    ) -> DesignReport:
        """Return the report of an answer from the grid."""
        q, good = self.question, None if isinstance(found, Infeasible) else found
        common = None if good is None else good.common
        note = f"these cells have no closed form: the best of {N_GRID} conductances a layer, responses refreshed at each answer"
        return DesignReport(
            provenance=provenance_of(
                placed, self.samples, seed=self.seed, output=self.graph.nodes[self.graph.output].name, reference=self.reference
            ),
            feasible=good is not None,
            design=None if good is None else self.table_design(good),
            per=q.per,
            power_budget_w=q.power_budget_w,
            mse_budget=q.mse_budget,
            yield_p=None,
            mse=None if good is None else good.mse,
            mse_verify=None if held_out is None else held_out.mse,
            mse_verify_rel_error=None if held_out is None else held_out.rel_error_estimate,
            read_power_verify_w=None if held_out is None else held_out.read_power_w,
            read_power_w=None if good is None else good.power_w,
            controllable_power_w=None if good is None else good.power_w - good.floor_w,
            baseline=None
            if common is None
            else Baseline(mse=common[0], read_power_w=common[1], g_used_siemens=common[2], power_at_same_mse_w=None),
            saving_total_rel=None,
            saving_controllable_rel=None,
            multiplier=None if good is None else (good.price if q.power_budget_w is not None else 1.0 / max(good.price, 1e-300)),
            duality_gap=None if good is None else good.gap_rel,
            n_at_upper_bound=0 if good is None else self._at_end(good, upper=True),
            n_at_lower_bound=0 if good is None else self._at_end(good, upper=False),
            n_refresh=0 if good is None else good.n_refresh,
            pareto=() if good is None else tuple({"read_power_w": p, "mse": e} for p, e in good.corners),
            mc=mc,
            yield_sampled_p=None,
            floor=found.floor if isinstance(found, Infeasible) else None,
            gap=found.gap if isinstance(found, Infeasible) else None,
            levers=() if good is not None else ("raise the budget above the floor", "use a cell with less error, or a lower read voltage"),
            notes=(note,),
            n_inputs=len(self.samples),
            elapsed_s=elapsed_s,
        )

    def _at_end(self, found: Tabulated, *, upper: bool) -> int:
        ends = {layer.name: layer.site.cell.g_max_siemens for layer in self.plan.layers}
        least = {la.name: la.site.cell.g_min_siemens + LEAST * (ends[la.name] - la.site.cell.g_min_siemens) for la in self.plan.layers}
        wanted = ends if upper else least
        return sum(abs(g - wanted[name]) <= 1e-9 * g for name, g in found.g_used_siemens.items())

    def infeasible(self, found: Infeasible, terms: Coefficients, *, elapsed_s: float) -> DesignReport:
        """Return the answer to a budget that nothing meets: the floor, the gap and the levers."""
        return self._report(
            feasible=False,
            found=None,
            terms=terms,
            floor=found.floor,
            gap=found.gap,
            levers=self._levers(terms),
            elapsed_s=elapsed_s,
        )

    def _levers(self, terms: Coefficients) -> tuple[str, ...]:
        if not terms.problem.n_groups:
            return self._memory_levers()
        if self.question.power_budget_w is not None:
            fixed = format_quantity(terms.problem.p0_w, "watt", n_digits=4)
            return (
                f"raise --power-budget above the floor; {fixed} of it do not depend on the scales",
                "lower drive.v_read_v: memristor power falls with its square",
                "lower drive.rate_hz, or sense.feedback_ohm where amplifiers are counted",
            )
        return (
            "raise --mse-budget above the floor",
            "raise cell.g_max_siemens, or lower cell.programming.error_rel (a better cell, or write-and-verify)",
            "set mapping.precompensate = true where cells clip; raise mapping.levels where quantization counts",
            "optimize per column (--per column): columns of small weights may use the whole range",
        )

    def _memory_levers(self) -> tuple[str, ...]:
        if self.question.power_budget_w is not None:
            return (
                "raise the budget above the floor, which is that of the largest error rates",
                "give memories less read_energy_j, words of fewer bits (memory.*.word.n_bits), or fewer reads (read_each)",
            )
        return (
            "raise --mse-budget above the floor: what rounding leaves, and the least error rates",
            "give words more bits (memory.*.word.n_bits), or memories a law that reaches lower rates, or a code (--memory-codes)",
        )

    def report(
        self,
        found: "Solution | CommonSolution",
        terms: Coefficients,
        placed: Plan,
        *,
        mc: TrialReport | None,
        held_out: ErrorReport,
        n_refresh: int,
        elapsed_s: float,
    ) -> DesignReport:
        """Return the answer with its baseline, certificate and verdict."""
        return self._report(
            feasible=True,
            found=found,
            terms=terms,
            placed=placed,
            mc=mc,
            held_out=held_out,
            n_refresh=n_refresh,
            elapsed_s=elapsed_s,
        )

    def _report(
        self,
        *,
        feasible: bool,
        found: "Solution | CommonSolution | None",
        terms: Coefficients,
        elapsed_s: float,
        placed: Plan | None = None,
        mc: TrialReport | None = None,
        held_out: ErrorReport | None = None,
        n_refresh: int = 0,
        floor: float | None = None,
        gap: float | None = None,
        levers: tuple[str, ...] = (),
    ) -> DesignReport:
        q, problem = self.question, terms.problem
        baseline = None if found is None else self._baseline(found, terms)
        common = None if baseline is None else baseline.power_at_same_mse_w
        curve = self._pareto(problem, found)
        return DesignReport(
            provenance=replace(
                provenance_of(
                    placed or self.plan,
                    self.samples,
                    seed=self.seed,
                    output=self.graph.nodes[self.graph.output].name,
                    reference=self.reference,
                )
            ),
            feasible=feasible,
            design=None if found is None else self.design(found, terms),
            per=q.per,
            power_budget_w=q.power_budget_w,
            mse_budget=q.mse_budget,
            yield_p=q.yield_p,
            mse=None if found is None else found.mse,
            mse_verify=None if held_out is None else held_out.mse,
            mse_verify_rel_error=None if held_out is None else held_out.rel_error_estimate,
            read_power_verify_w=None if held_out is None else held_out.read_power_w,
            read_power_w=None if found is None else found.power_w,
            controllable_power_w=None if found is None else found.power_w - problem.p0_w,
            baseline=baseline,
            saving_total_rel=None if common is None or found is None else 1.0 - found.power_w / common,
            saving_controllable_rel=None
            if common is None or found is None or common <= problem.p0_w
            else 1.0 - (found.power_w - problem.p0_w) / (common - problem.p0_w),
            multiplier=None if found is None else self._multiplier(found, problem),
            duality_gap=None if found is None else abs(found.duality_gap_rel),
            n_at_upper_bound=0 if found is None else int(np.sum(found.active_upper)),
            n_at_lower_bound=0 if found is None else int(np.sum(found.active_lower)),
            n_refresh=n_refresh,
            pareto=curve,
            mc=mc,
            yield_sampled_p=self._sampled_yield(mc),
            floor=floor,
            gap=gap,
            levers=levers,
            notes=self._notes(terms),
            n_inputs=len(self.samples),
            elapsed_s=elapsed_s,
        )

    def _pareto(self, problem: Problem, found: "Solution | CommonSolution | None") -> tuple[dict[str, float], ...]:
        """Return the trade-off around the answer; no points where error depends on nothing that moves."""
        if not problem.n_groups and self.memories is not None and self.question.memories != "fixed":
            return self._memories_curve(self.memories, problem)
        if problem.bias.is_constant and not np.any(problem.variance_siemens2 > 0.0):
            return ()
        curve = pareto(problem, N_PARETO, around=None if found is None else found.mse_per_watt)
        return tuple({"read_power_w": float(p), "mse": float(m)} for p, m in zip(curve.power_w, curve.mse))

    def _multiplier(self, found: "Solution | CommonSolution", problem: Problem) -> float:
        """Return what the budget is worth; the price of memories where no scale has one."""
        price = None if problem.n_groups or self.memory_choice is None else self.memory_choice.price
        if price is None:
            return found.multiplier
        return price if self.question.power_budget_w is not None else 1.0 / price

    def _memories_curve(self, memories: MemoryProblem, problem: Problem) -> tuple[dict[str, float], ...]:
        """Return error and power of memories alone, from the least power to the least error."""
        now = self.memory_choice or memories.present
        low, high = price_range(memories)
        choices = [memories.at(float(price)) for price in np.geomspace(high, low, N_PARETO)]
        points = [problem.moved(c.damage - now.damage, c.power_w - now.power_w) for c in choices]
        return tuple({"read_power_w": point.p0_w, "mse": point.bias.q2} for point in points)

    def _sampled_yield(self, mc: TrialReport | None) -> float | None:
        if mc is None or self.question.yield_p is None or self.question.mse_budget is None:
            return None
        return float(np.mean(mc.losses <= self.question.mse_budget))

    def _notes(self, terms: Coefficients) -> tuple[str, ...]:
        notes = []
        if not terms.problem.n_groups:
            notes.append("no layer is in a crossbar: there are no conductances to choose")
        elif not np.any(terms.problem.variance_siemens2 > 0.0) and terms.problem.bias.is_constant:
            notes.append(
                "the error does not depend on the scales (it is proportional to the stored conductance): "
                "the smallest conductances cost nothing"
            )
        if self.choice is not None:
            bits = ", ".join(f"{name} {n}" for name, n in self.choice.bits.items())
            notes.append(f"bits of the converters: {bits}; no choice of bits is better by more than {100 * self.choice.gap_rel:.2g} %")
        if self.memories is not None and self.memory_choice is not None:
            shares = f"{format_quantity(self.memory_choice.power_w, 'watt', n_digits=4)}, damage {self.memory_choice.damage:.3g}"
            of = "single faults" if self.refreshed is None else "single faults, then measured at the design"
            notes.append(f"{in_words(self.memories, self.memory_choice)}; together {shares} by {of}")
            same = self.memories.one_rate(self.memory_choice.power_w) if self.refreshed is None else None
            if same is not None and self.question.memories != "fixed":
                notes.append(f"one error rate for all bits, {same.rates[0][0]:.2g}, takes as much and does {same.damage:.3g}")
        if self.refreshed is not None:
            notes.append(_in_words(self.refreshed))
        if self.factor != 1.0:
            notes.append(f"beyond first order here: variances scaled by {self.factor:.3f} to the better closure, and optimized again")
        return tuple(notes)

    def _baseline(self, found: "Solution | CommonSolution", terms: Coefficients) -> Baseline | None:
        if not terms.problem.n_groups:
            return None
        relative = 1.0 / terms.w_max[terms.active] if self.question.per != "column" else 1.0 / self._layer_w_max(terms)
        power, mse = self._budgets(terms)
        at_budget = common_scale_within(terms.problem, relative, power=power, mse=mse)
        same = common_scale_within(terms.problem, relative, power=None, mse=found.mse)
        g_min = min(layer.site.cell.g_min_siemens for layer in self.plan.layers)
        return Baseline(
            mse=None if at_budget is None else at_budget.mse,
            read_power_w=None if at_budget is None else at_budget.power_w,
            g_used_siemens=None if at_budget is None else at_budget.scale_siemens + g_min,
            power_at_same_mse_w=None if same is None else same.power_w,
        )

    def _layer_w_max(self, terms: Coefficients) -> Array:
        """Return, by column, the largest weight of its layer: what a scale per layer would divide by."""
        top = {layer.name: np.full(layer.operator.n_columns, layer.site.w_span.max()) for layer in self.plan.layers}
        return terms.groups.largest(top)[terms.active]


def _in_words(done: Refreshed) -> str:
    """Return what measuring damages anew has come to."""
    why = f"by single faults the MSE would be {done.linear:.4g}, and {done.before:.4g} is predicted there"
    what = f"damages of memories were measured anew at the design {done.n_rounds} times"
    if done.after == done.before:
        return f"{why}: {what}, and no better design was found; a larger budget, or lower error rates, would be nearer to single faults"
    return f"{why}: {what}; {done.after:.4g} is predicted at this design"


def _bias2(terms: Coefficients, wanted: Array) -> float:
    return float(np.mean((terms.response.mean_output - wanted) ** 2))


def _largest_change(before: Plan, after: Plan) -> float:
    pairs = [(a.site.g_used_siemens, b.site.g_used_siemens) for a, b in zip(before.layers, after.layers) if not a.is_digital]
    return max((float(np.max(np.abs(np.log(b / a)))) for a, b in pairs), default=0.0)


def _with_floor(found: Infeasible, least_w: float) -> Infeasible:
    """Return an infeasible answer whose floor of power is no more than what a design was seen to take."""
    return replace(found, floor=max(min(found.floor, least_w), found.budget)) if found.at == "power" else found
