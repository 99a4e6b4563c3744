"""The best conductance scales under a budget: closed form, refreshed at its own answer, and verified by Monte-Carlo."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from scipy import stats

from accelsim.design import MAX_BITS, Design
from accelsim.optimizer.bits import BitChoice, bit_table, choose_bits
from accelsim.optimizer.closed_form import best_common_scale, minimize_mse, minimize_power
from accelsim.optimizer.coefficients import Coefficients, coefficients
from accelsim.optimizer.memories import (
    MemoryChoice,
    MemoryProblem,
    as_design,
    best_memories,
    in_words,
    memory_sites,
    price_range,
)
from accelsim.optimizer.pareto import pareto
from accelsim.optimizer.problem import CommonScale, Infeasible, Problem, Solution
from accelsim.optimizer.slices import check_slicings, sliced
from accelsim.optimizer.tabulated import LEAST, N_GRID, Tabulated, needs_table, tabulated
from accelsim.placement import Plan, check_question
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
from accelsim.values_in_memory import accesses_of
from devices.base.errors import SamplesError, SpecError, UnsupportedMethodError
from devices.base.quantity import format_quantity
from workloads.network import Network
from workloads.operators.base import Array
from workloads.samples import Samples

Per = Literal["layer", "column", "network"]
Memories = Literal["fixed", "layer", "bit"]
MAX_REFRESH = 6
SETTLED = 2e-3
N_PARETO = 41


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    power_budget_w: float | None
    mse_budget: float | None
    per: Per
    yield_p: float | None
    memories: Memories = "fixed"
    memory_domains: int | None = None
    memory_codes: bool = False


def usual_memories(plan: Plan) -> Memories:
    """Return whether memories are moved where nothing is said: if all have an energy, and any an error rate that could change."""
    every = [access for layer in plan.layers for access in accesses_of(layer)]
    known = all(a.memory.read_energy_j > 0.0 or a.memory.write_energy_j > 0.0 for a in every)
    movable = any(a.memory.law.bounds[0] < a.memory.law.bounds[1] for a in every)
    return "layer" if known and movable else "fixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sampling:
    """How Monte-Carlo checks a design; not at all with no trials."""

    rel_error: float
    max_trials: int
    threads: int | None
    checkpoint: str | Path | None
    progress: Progress | None


def optimize(
    plan: Plan,
    samples: Samples,
    *,
    seed: int,
    verify: Samples | None = None,
    power_budget_w: float | None = None,
    mse_budget: float | None = None,
    energy_budget_j: float | None = None,
    latency_budget_s: float | None = None,
    area_budget_m2: float | None = None,
    per: Per = "layer",
    yield_p: float | None = None,
    adc_bits: tuple[int, int] | None = None,
    slice_bits: Sequence[tuple[int, ...]] | None = None,
    calibration: Samples | None = None,
    memories: Memories | None = None,
    memory_domains: int | None = None,
    memory_codes: bool = False,
    output: str | None = None,
    reference: Reference = "float",
    mc_rel_error: float = 0.01,
    mc_max_trials: int = 5_000,
    threads: int | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> DesignReport:
    """Return the design with the least error within `power_budget_w` or `energy_budget_j`, or with the least power within `mse_budget`.

    Moves `mapping.g_used_siemens`, one a layer, a column, or one for the network, by the closed form in coefficients that
    are refreshed at each answer. Without `verify`, the last half of `samples` is held out for it. With `yield_p`, that
    share of chips meets the budget. With `adc_bits=(least, most)` the bits of each layer's ADC are chosen as well, so that
    converters and conductances share the budget. Error rates of memories are moved too, one a `layer` or one a `bit` of it, or stay
    `fixed`; by default they move where memories have energies. They may share `memory_domains` voltages, and with `memory_codes` each gets
    SECDED where that pays: one multiplier prices all. An energy budget is that of a whole inference: what the chip takes beside reading is
    taken away first. With `latency_budget_s` an image must also be done in time, with `area_budget_m2` the chip must be small enough.
    With `slice_bits`, a list of slicings such as [(8,), (4, 4)], the slices of each layer's weights are chosen with its conductance;
    that needs the `calibration` samples the plan was placed with. Monte-Carlo is not run with
    `mc_max_trials=0`; with `checkpoint`, a file, an interrupted run's trials are not drawn again.
    Raises SpecError for contradicting budgets, InfeasibleError where the rest of the chip is beyond one; an infeasible budget is an
    answer with its floor, gap and levers.
    """
    check_question(plan, samples)
    notes: tuple[str, ...] = ()
    if energy_budget_j is not None:
        if power_budget_w is not None or mse_budget is not None:
            raise SpecError("need exactly one budget: power_budget_w, mse_budget or energy_budget_j")
        power_budget_w, notes = _read_power(plan, energy_budget_j)
    if latency_budget_s is not None:
        from accelsim.timing.budgets import check_latency

        notes = (*notes, f"an image takes {format_quantity(check_latency(plan, latency_budget_s), 'second', n_digits=4)}")
    question = _Question(
        power_budget_w=power_budget_w, mse_budget=mse_budget, per=per, yield_p=yield_p, memories=memories or usual_memories(plan),
        memory_domains=memory_domains, memory_codes=memory_codes,
    )  # fmt: skip
    _check(question)
    _check_memories(plan, question)
    sampling = _Sampling(rel_error=mc_rel_error, max_trials=mc_max_trials, threads=threads, checkpoint=checkpoint, progress=progress)
    if slice_bits is not None:
        if adc_bits is not None or yield_p is not None or per != "layer" or plan.has_memories:
            raise UnsupportedMethodError(
                "optimize() chooses slices per layer, without adc_bits, yield_p and memories; choose them in a second run"
            )
        check_slicings(slice_bits)
        if calibration is None or calibration.digest != plan.calibration_digest:
            raise SpecError(
                "slice_bits: needs the calibration samples that the plan was placed with: ranges of converters go with the slices"
            )
        report = _by_slices(
            plan, samples, calibration, slice_bits, question=question, seed=seed, verify=verify, area_budget_m2=area_budget_m2,
            output=output, reference=reference, sampling=sampling,
        )  # fmt: skip
        return replace(report, notes=(*report.notes, *notes)) if notes else report
    if area_budget_m2 is not None:
        from accelsim.timing.budgets import check_area

        notes = (*notes, f"the chip takes {check_area(plan, area_budget_m2) * 1e6:.4g} mm2")
    report = _answered(
        plan, samples, question=question, seed=seed, verify=verify, adc_bits=adc_bits, output=output, reference=reference,
        sampling=sampling,
    )  # fmt: skip
    return replace(report, notes=(*report.notes, *notes)) if notes else report


def _read_power(plan: Plan, energy_budget_j: float) -> tuple[float, tuple[str, ...]]:
    """Return the read power that an energy budget leaves, and what there is to say."""
    from accelsim.timing.budgets import read_share

    share = read_share(plan, energy_budget_j)
    rest, budget = (format_quantity(energy, "joule", n_digits=4) for energy in (share.rest_j, energy_budget_j))
    if plan.accelerator.chip is None:
        return share.read_power_w, (f"{budget} an inference are all for arrays, converters and memories: the spec has no [chip]",)
    return share.read_power_w, (f"of {budget} an inference, {rest} are for what is not reading",)


def _answered(
    plan: Plan, samples: Samples, *, question: _Question, seed: int, verify: Samples | None, adc_bits: tuple[int, int] | None,
    output: str | None, reference: Reference, sampling: _Sampling,
) -> DesignReport:  # fmt: skip
    """Answer a question that has been checked."""
    started = time.perf_counter()
    if verify is None:
        samples, verify = _halves(samples)
    search = _Search(plan, samples, question=question, seed=seed, output=output, reference=reference)
    if any(layer.site.is_sparse and not layer.is_digital for layer in plan.layers):
        raise UnsupportedMethodError("optimize() cannot weigh stuck cells; optimize without cell.stuck, and predict() the design with it")
    if needs_table(plan):
        if plan.has_memories:
            raise UnsupportedMethodError("optimize() knows memories beside cells with a closed form only; leave [memory] or these laws out")
        return _by_table(search, verify, adc_bits, sampling=sampling, started=started)
    search.weigh_memories()
    if adc_bits is not None:
        search.choose_bits(adc_bits)
    found, terms, n_refresh = search.run()
    if isinstance(found, Infeasible):
        return search.infeasible(found, terms, elapsed_s=time.perf_counter() - started)
    terms = search.with_memories(terms)
    placed = search.faulty.with_design(search.design(found, terms))
    mc = search.sampled(placed, verify, sampling)
    held_out = predict(placed, verify, seed=seed, output=output, reference=reference, method="auto")
    return search.report(found, terms, placed, mc=mc, held_out=held_out, n_refresh=n_refresh, elapsed_s=time.perf_counter() - started)


def _by_slices(
    plan: Plan, samples: Samples, calibration: Samples, choices: Sequence[tuple[int, ...]], *, question: _Question, seed: int,
    verify: Samples | None, area_budget_m2: float | None, output: str | None, reference: Reference, sampling: _Sampling,
) -> DesignReport:  # fmt: skip
    """Answer with slices as variables: choices of slices and conductances from a table."""
    from accelsim.timing.budgets import arrays_within, check_area

    started = time.perf_counter()
    if verify is None:
        samples, verify = _halves(samples)
    search = _Search(plan, samples, question=question, seed=seed, output=output, reference=reference)
    if any(layer.site.is_sparse for layer in plan.layers):
        raise UnsupportedMethodError("optimize() cannot weigh stuck cells; optimize without cell.stuck, and predict() the design with it")
    found = sliced(
        search.plan, search.graph, samples, search.wanted, calibration=calibration, choices=choices, seed=seed,
        power_budget_w=question.power_budget_w, mse_budget=question.mse_budget,
        most_arrays=None if area_budget_m2 is None else arrays_within(plan, area_budget_m2),
    )  # fmt: skip
    if isinstance(found, Infeasible):
        return search.table_report(found, plan, mc=None, held_out=None, elapsed_s=time.perf_counter() - started)
    table = Tabulated(
        g_used_siemens=found.g_used_siemens, mse=found.mse, power_w=found.power_w, gap_rel=found.gap_rel, price=found.price,
        n_refresh=found.n_refresh, common=None, corners=found.corners, floor_w=found.floor_w,
    )  # fmt: skip
    design = replace(search.table_design(table), slice_bits={name: bits for name, bits in found.slicing.items() if bits})
    placed, notes = found.plan, []
    if area_budget_m2 is not None:
        notes.append(f"the chip takes {check_area(placed, area_budget_m2) * 1e6:.4g} mm2")
    mc = search.sampled(placed, verify, sampling)
    held_out = predict(placed, verify, seed=seed, output=output, reference=reference)
    report = search.table_report(table, placed, mc=mc, held_out=held_out, elapsed_s=time.perf_counter() - started)
    words = ", ".join(f"{name} {'+'.join(map(str, bits)) or 'one cell'}" for name, bits in found.slicing.items())
    note = f"slices of the weights, in bits: {words}; no choice is better by more than {100 * found.gap_rel:.2g} %, by the model"
    return replace(report, design=design, notes=(note, *notes))


def _by_table(
    search: "_Search",
    verify: Samples,
    adc_bits: tuple[int, int] | None,
    *,
    sampling: _Sampling,
    started: float,
) -> DesignReport:
    """Answer for cells without a closed form: conductances from a grid."""
    q, plan = search.question, search.plan
    if q.per == "column" or q.yield_p is not None or adc_bits is not None:
        raise UnsupportedMethodError(
            "optimize() has no closed form for these cells (errors by state, drift, 1/f noise, wires): it looks conductances up in a "
            "table, per layer or network, without yield_p and adc_bits"
        )
    found = tabulated(
        plan,
        search.graph,
        search.samples,
        search.wanted,
        seed=search.seed,
        power_budget_w=q.power_budget_w,
        mse_budget=q.mse_budget,
        per=q.per,
    )
    placed, mc, held_out = plan, None, None
    if not isinstance(found, Infeasible):
        placed = plan.with_design(search.table_design(found))
        mc = search.sampled(placed, verify, sampling)
        held_out = predict(placed, verify, seed=search.seed, output=search.output, reference=search.reference)
    return search.table_report(found, placed, mc=mc, held_out=held_out, elapsed_s=time.perf_counter() - started)


def _check_memories(plan: Plan, question: _Question) -> None:
    """Raise SpecError where memories are to be moved that are not there."""
    if question.memories != "fixed" and not plan.has_memories:
        raise SpecError(f"memories: {question.memories}: the spec has no memory; add [memory.weights] or [memory.activations]")


def _check(question: _Question) -> None:
    if (question.power_budget_w is None) == (question.mse_budget is None):
        raise SpecError(
            "need exactly one budget: power_budget_w (--power-budget), mse_budget (--mse-budget) or energy_budget_j (--energy-budget)"
        )
    value = question.power_budget_w if question.mse_budget is None else question.mse_budget
    assert value is not None  # exactly one is given
    if not 0.0 < value < np.inf:
        raise SpecError(f"need a budget above 0, got {value:g}")
    if question.per not in ("layer", "column", "network"):
        raise SpecError(f"per: {question.per!r}: need layer | column | network")
    if question.memories not in get_args(Memories):
        raise SpecError(f"memories: {question.memories!r}: need {' | '.join(get_args(Memories))}")
    if question.memory_domains is not None and question.memory_domains < 1:
        raise SpecError(f"memory_domains: {question.memory_domains}: need 1 or more")
    moves = question.memories != "fixed"
    if not moves and (question.memory_domains is not None or question.memory_codes):
        raise SpecError(
            "memory_domains, memory_codes: memories stay fixed here: give them read_energy_j and write_energy_j and a law with a range, "
            "or memories = \"layer\""
        )
    if question.yield_p is not None and not 0.0 < question.yield_p < 1.0:
        raise SpecError(f"need 0 < yield_p < 1, got {question.yield_p:g}; 0.95 means that 95 % of chips meet the budget")


def _halves(samples: Samples) -> tuple[Samples, Samples]:
    if len(samples) < 2:
        raise SamplesError(f"optimize() holds out half of the samples to verify on, and there is {len(samples)}; give more, or give verify")
    half = len(samples) // 2
    return samples[:half], samples[half:]


class _Search:
    """One question on one plan: refreshes coefficients until the answer stays where it is."""

    def __init__(self, plan: Plan, samples: Samples, *, question: _Question, seed: int, output: str | None, reference: Reference) -> None:
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
        terms = self.with_memories(self.terms(self.plan, 1.0))
        present = {layer.name: layer.sense.adc.n_bits for layer in self.plan.layers if layer.sense.adc is not None}
        power, mse = self._budgets(terms)
        choice = choose_bits(table, terms.problem, present, power_budget_w=power, mse_budget=mse)
        if isinstance(choice, Infeasible):  # the search says so, from the converters that take least or err least
            at = [0 if power is not None else len(table.bits) - 1] * len(table.layers)
            bits: Mapping[str, int] = {name: table.bits[n] for name, n in zip(table.layers, at)}
        else:
            self.choice, bits = choice, choice.bits
        layers = tuple(layer.with_adc_bits(bits[layer.name]) if layer.name in bits else layer for layer in self.plan.layers)
        self.plan = replace(self.plan, layers=layers)

    def terms(self, plan: Plan, factor: float) -> Coefficients:
        """Return the coefficients at a plan's design."""
        return coefficients(
            plan, self.graph, self.samples, reference=self.wanted, per=self.question.per, seed=self.seed, variance_factor=factor
        )

    def run(self) -> "tuple[Solution | CommonSolution | Infeasible, Coefficients, int]":
        """Return the answer, the coefficients it rests on, and how often they were refreshed."""
        plan, found = self.plan, None
        terms = self.terms(plan, 1.0)
        for n in range(MAX_REFRESH):
            found = self.solve(terms)
            if isinstance(found, Infeasible):
                if n:  # the model moved away from a feasible point: look again from the strongest design
                    break
                return found, terms, n
            moved = self.placed(found, terms)
            change = _largest_change(plan, moved)
            plan = moved
            if n and change < SETTLED:
                return found, terms, n
            terms = self.terms(plan, 1.0)
            terms = self.beyond_first_order(plan, terms)
        assert found is not None  # the loop ran
        return self.solve(terms), terms, MAX_REFRESH

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
        now = self.memories.present.power_w
        if self.question.memories != "fixed":
            self.memory_choice = self._best_memories(self.memories, terms, now)
        choice = self.memory_choice or self.memories.present
        return replace(terms, problem=terms.problem.moved(choice.damage, choice.power_w - now))

    def _best_memories(self, memories: MemoryProblem, terms: Coefficients, now: float) -> MemoryChoice | None:
        def value(damage: float, power_w: float) -> "tuple[float, float] | Infeasible":
            found = self._solve_scales(replace(terms, problem=terms.problem.moved(damage, power_w - now)))
            return found if isinstance(found, Infeasible) else (found.mse, found.power_w)

        found = best_memories(memories, value, 0 if self.question.mse_budget is None else 1, prices=price_range(memories))
        if isinstance(found, Infeasible):
            return memories.at(price_range(memories)[int(self.question.mse_budget is not None) - 1])
        choice, n = found[0], self.question.memory_domains
        return choice if n is None else memories.clustered(choice, n)

    def _solve_scales(self, terms: Coefficients) -> "Solution | CommonSolution | Infeasible":
        q = self.question
        if q.per == "network":
            return _common_solution(terms, self._budgets(terms))
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

    def sampled(self, placed: Plan, verify: Samples, sampling: _Sampling) -> TrialReport | None:
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
            multiplier=None if found is None else found.multiplier,
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
        """Return the trade-off around the answer; no points where error does not depend on the scales."""
        if problem.bias.is_constant and not np.any(problem.variance_siemens2 > 0.0):
            return ()
        curve = pareto(problem, N_PARETO, around=None if found is None else found.mse_per_watt)
        return tuple({"read_power_w": float(p), "mse": float(m)} for p, m in zip(curve.power_w, curve.mse))

    def _sampled_yield(self, mc: TrialReport | None) -> float | None:
        if mc is None or self.question.yield_p is None or self.question.mse_budget is None:
            return None
        return float(np.mean(mc.losses <= self.question.mse_budget))

    def _notes(self, terms: Coefficients) -> tuple[str, ...]:
        notes = []
        if not np.any(terms.problem.variance_siemens2 > 0.0) and terms.problem.bias.is_constant:
            notes.append(
                "the error does not depend on the scales (it is proportional to the stored conductance): "
                "the smallest conductances cost nothing"
            )
        if self.choice is not None:
            bits = ", ".join(f"{name} {n}" for name, n in self.choice.bits.items())
            notes.append(f"bits of the converters: {bits}; no choice of bits is better by more than {100 * self.choice.gap_rel:.2g} %")
        if self.memories is not None and self.memory_choice is not None:
            shares = f"{format_quantity(self.memory_choice.power_w, 'watt', n_digits=4)}, damage {self.memory_choice.damage:.3g}"
            notes.append(f"{in_words(self.memories, self.memory_choice)}; together {shares} by single faults")
        if self.factor != 1.0:
            notes.append(f"beyond first order here: variances scaled by {self.factor:.3f} to the better closure, and optimized again")
        return tuple(notes)

    def _baseline(self, found: "Solution | CommonSolution", terms: Coefficients) -> Baseline:
        relative = 1.0 / terms.w_max[terms.active] if self.question.per != "column" else 1.0 / self._layer_w_max(terms)
        power, mse = self._budgets(terms)
        at_budget = _common(terms.problem, relative, power=power, mse=mse)
        same = _common(terms.problem, relative, power=None, mse=found.mse)
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CommonSolution:
    """The best common scale as an answer of its own (`per="network"`): one number, found exactly, so no gap."""

    c_siemens: Array
    mse: float
    power_w: float
    multiplier: float
    mse_per_watt: float
    duality_gap_rel: float
    active_lower: Array
    active_upper: Array


def _common_solution(terms: Coefficients, budgets: tuple[float | None, float | None]) -> CommonSolution | Infeasible:
    relative = 1.0 / terms.w_max[terms.active]
    power, mse = budgets
    found = (
        best_common_scale(terms.problem, relative, power_budget_w=power)
        if power is not None
        else best_common_scale(terms.problem, relative, mse_budget=mse)
    )
    if isinstance(found, Infeasible):
        return found
    nudged = found.c_siemens * (1.0 - 1e-6)
    slope = (float(terms.problem.mse(nudged)) - found.mse) / max(found.power_w - float(terms.problem.power_w(nudged)), 1e-300)
    none = np.zeros(len(relative), bool)
    return CommonSolution(
        c_siemens=found.c_siemens,
        mse=found.mse,
        power_w=found.power_w,
        mse_per_watt=slope,
        multiplier=slope if power is not None else 1.0 / max(slope, 1e-300),
        duality_gap_rel=0.0,
        active_lower=none,
        active_upper=found.c_siemens >= terms.problem.c_max_siemens * (1 - 1e-12),
    )


def _common(problem: Problem, relative: Array, *, power: float | None, mse: float | None) -> CommonScale | None:
    try:
        found = (
            best_common_scale(problem, relative, power_budget_w=power)
            if power is not None
            else best_common_scale(problem, relative, mse_budget=mse)
        )
    except SpecError:
        return None
    return None if isinstance(found, Infeasible) else found


def _bias2(terms: Coefficients, wanted: Array) -> float:
    return float(np.mean((terms.response.mean_output - wanted) ** 2))


def _largest_change(before: Plan, after: Plan) -> float:
    pairs = [(a.site.g_used_siemens, b.site.g_used_siemens) for a, b in zip(before.layers, after.layers) if not a.is_digital]
    return max((float(np.max(np.abs(np.log(b / a)))) for a, b in pairs), default=0.0)
