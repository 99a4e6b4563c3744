"""Monte-Carlo over programmings, until the answer is known as well as was asked.

The stopping rule is tested at fixed trial counts, and every trial is a pure function of (seed, trial): the result is the
same bits for any number of threads, in any process, and after an interrupt and resume.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from accelsim.ledger import converter_power, memory_power, reads_per_second_times_read_time
from accelsim.placement import Plan, check_question
from accelsim.report.provenance import provenance_of
from accelsim.report.records import TrialReport
from accelsim.response.target import Reference, graph_to_output, reference_outputs
from accelsim.sampling.checkpoint import load_trials, save_trials
from accelsim.sampling.control import BLOCK, Scheme, control_mean, in_words, scheme_of
from accelsim.sampling.estimate import ControlMean, Interval, adjusted_losses, checkpoints, controlled_interval, mean_interval
from accelsim.sampling.faults import ENOUGH_EVENTS, effective_events, rare_faults, read_again, spread_over_chips
from accelsim.sampling.record import Record, no_trials
from accelsim.sampling.trials import N_POWER_TRIALS, Outcome, TrialRunner
from devices.base.errors import SpecError
from workloads.network import Network, digest_of
from workloads.operators.base import Array
from workloads.samples import Samples

Progress = Callable[[int, int, float], None]
"""Called with trials done, the most there can be, and the relative half-width reached."""


def monte_carlo(
    plan: Plan,
    samples: Samples,
    *,
    seed: int,
    rel_error: float = 0.01,
    confidence: float = 0.95,
    max_trials: int = 100_000,
    threads: int | None = None,
    control_variate: bool = True,
    output: str | None = None,
    reference: Reference = "float",
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> TrialReport:
    """Sample programmings until the MSE's interval has the relative half-width `rel_error`, inputs given.

    Ctrl-C ends it early with what is there (`stopped_by="interrupt"`). With `checkpoint`, a file, an interrupted run
    goes on where it stopped, to the same bits. Raises SpecError for parameters that make no sense.
    """
    _check(rel_error, confidence, max_trials)
    check_question(plan, samples)
    started, cpu_started = time.perf_counter(), time.process_time()
    graph = graph_to_output(plan.graph, output)
    wanted = reference_outputs(plan, graph, samples, reference)
    importance = rare_faults(plan, graph, samples, seed=seed)
    known, reason = None, "control variate off as asked"
    if importance is not None:
        reason = "off: faults by importance"
    elif control_variate:
        known, reason = control_mean(plan, graph, samples, wanted, seed=seed)
    runner = TrialRunner(plan, graph, samples, reference=wanted, seed=seed, control=known is not None, importance=importance)
    key = digest_of(plan.digest, samples.digest, str(seed), str(output), reference, str(known is not None), str(importance is not None))
    record = load_trials(checkpoint, key=key, n_images=len(samples)) if checkpoint else no_trials(len(samples))
    stopped_by = "max_trials"
    try:
        for count in checkpoints(max_trials):
            for longer in _extended(record, runner, count, threads=threads, known=known):
                record = longer
                if checkpoint:
                    save_trials(checkpoint, record, key=key)
            interval = _interval(record, known, confidence)
            if progress is not None:
                progress(record.n_trials, max_trials, interval.half_width_rel)
            if interval.half_width_rel <= rel_error and (not plan.has_faults or effective_events(record) >= ENOUGH_EVENTS):
                stopped_by = "rel_error"
                break
    except KeyboardInterrupt:
        stopped_by = "interrupt"
    again = None if stopped_by == "interrupt" else read_again(plan, runner, record)
    return _report(
        plan,
        graph,
        samples,
        record,
        wanted,
        known=known,
        confidence=confidence,
        stopped_by=stopped_by,
        seed=seed,
        reference=reference,
        reason=reason,
        again=again,
        elapsed_s=time.perf_counter() - started,
        cpu_s=time.process_time() - cpu_started,
    )


def _check(rel_error: float, confidence: float, max_trials: int) -> None:
    if not 0.0 < rel_error < 1.0:
        raise SpecError(f"need 0 < rel_error < 1, got {rel_error:g}; 0.01 asks for a half-width of 1 %")
    if not 0.5 <= confidence < 1.0:
        raise SpecError(f"need 0.5 <= confidence < 1, got {confidence:g}; 0.95 is usual")
    if max_trials < 20:
        raise SpecError(f"need max_trials >= 20, got {max_trials}; an interval needs at least two batches of ten")


def usable_threads() -> int:
    """Return the number of CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _extended(record: Record, runner: TrialRunner, count: int, *, threads: int | None, known: ControlMean | None) -> Iterator[Record]:
    """Yield the record as it grows to `count` trials, block by block, computed by threads in any order and kept in trial order."""
    n_threads = usable_threads() if threads is None else max(1, threads)
    with ThreadPoolExecutor(n_threads) as pool:
        while record.n_trials < count:
            scheme = scheme_of(record, known)
            block = range(record.n_trials, min(record.n_trials + BLOCK, count))

            def trial(t: int, scheme: Scheme = scheme) -> Outcome:
                if scheme == "pairs":
                    return runner.run(t // 2, sign=1.0 - 2.0 * (t % 2))
                return runner.run(t, control=scheme == "control")

            try:
                outcomes = list(map(trial, block) if n_threads == 1 else pool.map(trial, block))
            except KeyboardInterrupt:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
            record = _appended(record, outcomes)
            yield record


def _appended(record: Record, outcomes: list[Outcome]) -> Record:
    if not outcomes:
        return record
    correct = [o.correct for o in outcomes if o.correct is not None]
    return Record(
        losses=np.append(record.losses, [o.loss for o in outcomes]),
        controls=np.append(record.controls, [o.control for o in outcomes]),
        powers=np.append(record.powers, [o.power_w for o in outcomes]),
        n_correct=np.append(record.n_correct, [np.nan if o.correct is None else float(o.correct.sum()) for o in outcomes]),
        correct_by_image=record.correct_by_image + (np.sum(correct, axis=0) if correct else 0),
        bases=np.append(record.bases, [o.base for o in outcomes]),
        weights=np.append(record.weights, [o.weight for o in outcomes]),
    )


def _interval(record: Record, known: ControlMean | None, confidence: float) -> Interval:
    scheme = scheme_of(record, known)
    used = None if scheme == "plain" else known
    return controlled_interval(record.losses, record.controls, used, paired=scheme == "pairs", confidence=confidence)


def _report(
    plan: Plan,
    graph: Network,
    samples: Samples,
    record: Record,
    wanted: Array,
    *,
    known: ControlMean | None,
    confidence: float,
    stopped_by: str,
    seed: int,
    reference: Reference,
    reason: str,
    again: Array | None,
    elapsed_s: float,
    cpu_s: float,
) -> TrialReport:
    scheme = scheme_of(record, known)
    _, factor = adjusted_losses(record.losses, record.controls, None if scheme == "plain" else known, paired=scheme == "pairs")
    interval = _interval(record, known, confidence)
    accuracy, accuracy_ci = _accuracy(record, samples, confidence)
    powers = record.powers[:N_POWER_TRIALS]
    powers = powers[np.isfinite(powers)]
    pooled = float(wanted.var())
    chips = spread_over_chips(plan, record, again)
    return TrialReport(
        provenance=provenance_of(plan, samples, seed=seed, output=graph.nodes[graph.output].name, reference=reference),
        mse=interval.mean,
        ci_low=interval.low,
        ci_high=interval.high,
        mse_se=interval.standard_error,
        confidence=confidence,
        mse_rel=interval.mean / pooled if pooled > 0.0 else float("nan"),
        n_trials=record.n_trials,
        stopped_by=stopped_by,
        variance_factor=factor,
        control_variate=in_words(record, known, reason),
        accuracy=accuracy,
        accuracy_ci=accuracy_ci,
        mse_chip_sd=chips.sd,
        mse_chip_quantiles=chips.quantiles,
        n_effective=effective_events(record) if plan.has_faults else None,
        read_power_w=_read_power(plan, powers),
        n_inputs=len(samples),
        losses=record.losses,
        elapsed_s=elapsed_s,
        cpu_s=cpu_s,
    )


def _accuracy(record: Record, samples: Samples, confidence: float) -> tuple[float | None, tuple[float, float] | None]:
    """Return the mean accuracy over trials and images, with its interval over images."""
    if samples.y is None or record.n_trials == 0 or np.isnan(record.n_correct[0]):
        return None, None
    by_image = record.correct_by_image / record.n_trials
    interval = mean_interval(by_image, confidence=confidence, batch=1)
    return float(by_image.mean()), (max(0.0, interval.low), min(1.0, interval.high))


def _read_power(plan: Plan, powers: Array) -> float:
    """Return the mean measured power of cells and amplifiers, and that of converters and memories, which does not depend on the trial."""
    if not len(powers):
        return float("nan")
    rest = sum(sum(converter_power(plan, layer)) + memory_power(plan, layer) for layer in plan.layers)
    return float(powers.mean()) * reads_per_second_times_read_time(plan) + rest
