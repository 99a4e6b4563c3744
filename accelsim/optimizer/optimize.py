"""The best conductance scales under a budget: closed form, refreshed at its own answer, and verified by Monte-Carlo."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np

from accelsim.optimizer.answers import Answers
from accelsim.optimizer.problem import Infeasible
from accelsim.optimizer.refresh import refresh
from accelsim.optimizer.search import Memories, Per, Question, Sampling
from accelsim.optimizer.slices import check_slicings, sliced
from accelsim.optimizer.tabulated import Tabulated, needs_table, tabulated
from accelsim.placement import Plan, check_question
from accelsim.prediction.predict import predict
from accelsim.report.design_report import DesignReport
from accelsim.response.target import Reference
from accelsim.sampling.monte_carlo import Progress
from accelsim.values_in_memory import accesses_of
from devices.base.errors import SamplesError, SpecError, UnsupportedMethodError
from devices.base.quantity import format_quantity
from workloads.samples import Samples


def usual_memories(plan: Plan) -> Memories:
    """Return whether memories are moved where nothing is said: if all have an energy, and any an error rate that could change."""
    every = [access for layer in plan.layers for access in accesses_of(layer)]
    known = all(a.memory.read_energy_j > 0.0 or a.memory.write_energy_j > 0.0 for a in every)
    movable = any(a.memory.law.bounds[0] < a.memory.law.bounds[1] for a in every)
    return "layer" if known and movable else "fixed"


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
    question = Question(
        power_budget_w=power_budget_w, mse_budget=mse_budget, per=per, yield_p=yield_p, memories=memories or usual_memories(plan),
        memory_domains=memory_domains, memory_codes=memory_codes,
    )  # fmt: skip
    _check(question)
    _check_memories(plan, question)
    sampling = Sampling(rel_error=mc_rel_error, max_trials=mc_max_trials, threads=threads, checkpoint=checkpoint, progress=progress)
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
    plan: Plan, samples: Samples, *, question: Question, seed: int, verify: Samples | None, adc_bits: tuple[int, int] | None,
    output: str | None, reference: Reference, sampling: Sampling,
) -> DesignReport:  # fmt: skip
    """Answer a question that has been checked."""
    started = time.perf_counter()
    if verify is None:
        samples, verify = _halves(samples)
    search = Answers(plan, samples, question=question, seed=seed, output=output, reference=reference)
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
    found, terms = refresh(search, found, terms)
    terms = search.at_choice(terms)
    placed = search.faulty.with_design(search.design(found, terms))
    mc = search.sampled(placed, verify, sampling)
    held_out = predict(placed, verify, seed=seed, output=output, reference=reference, method="auto")
    return search.report(found, terms, placed, mc=mc, held_out=held_out, n_refresh=n_refresh, elapsed_s=time.perf_counter() - started)


def _by_slices(
    plan: Plan, samples: Samples, calibration: Samples, choices: Sequence[tuple[int, ...]], *, question: Question, seed: int,
    verify: Samples | None, area_budget_m2: float | None, output: str | None, reference: Reference, sampling: Sampling,
) -> DesignReport:  # fmt: skip
    """Answer with slices as variables: choices of slices and conductances from a table."""
    from accelsim.timing.budgets import arrays_within, check_area

    started = time.perf_counter()
    if verify is None:
        samples, verify = _halves(samples)
    search = Answers(plan, samples, question=question, seed=seed, output=output, reference=reference)
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
    search: Answers,
    verify: Samples,
    adc_bits: tuple[int, int] | None,
    *,
    sampling: Sampling,
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


def _check_memories(plan: Plan, question: Question) -> None:
    """Raise SpecError where memories are to be moved that are not there."""
    if question.memories != "fixed" and not plan.has_memories:
        raise SpecError(f"memories: {question.memories}: the spec has no memory; add [memory.weights] or [memory.activations]")


def _check(question: Question) -> None:
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
