"""What a search has found, as a report: the design with its baseline, certificate and curve, or its floor, gap and levers."""

from dataclasses import replace

import numpy as np

from accelsim.design import Design
from accelsim.optimizer.coefficients import Coefficients
from accelsim.optimizer.common_scale import CommonSolution, common_scale_within
from accelsim.optimizer.memories import (
    MemoryProblem,
    Refreshed,
    in_words,
    price_range,
)
from accelsim.optimizer.pareto import pareto
from accelsim.optimizer.problem import Infeasible, Problem, Solution
from accelsim.optimizer.search import Search
from accelsim.optimizer.tabulated import LEAST, N_GRID, Tabulated
from accelsim.placement import Plan
from accelsim.report.design_report import Baseline, DesignReport
from accelsim.report.provenance import provenance_of
from accelsim.report.records import ErrorReport, TrialReport
from accelsim.values_in_memory import unpriced
from devices.base.quantity import format_quantity
from workloads.operators.base import Array

N_PARETO = 41


class Answers(Search):
    """A search that tells what it has found."""

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
        if self.question.memories == "fixed":
            notes.extend(f"{what}; until then error rates stay as they are" for what in unpriced(self.faulty.layers))
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
