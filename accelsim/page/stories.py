"""What each kind of report was asked and answers, in words; which pictures and tables show it."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from accelsim.page.search_stories import of_explore, of_sweep
from accelsim.page.story import Draw, Story
from accelsim.report.base import Report
from accelsim.report.design_report import DesignReport
from accelsim.report.diagnosis import Diagnosis
from accelsim.report.evaluation import Evaluation
from accelsim.report.explore_report import ExploreReport
from accelsim.report.records import INTERACTION, ErrorReport, TrialReport
from accelsim.report.sweep_report import SweepReport
from accelsim.report.time_report import TimeReport
from accelsim.report.training_report import TrainingReport
from devices.base.quantity import format_quantity, percent


def story_of(report: Report) -> Story:
    """Return the story of a report; of a kind without one, its rows and its picture."""
    for kind, tell in _TELLERS.items():
        if isinstance(report, kind):
            return tell(report)
    return Story(
        question=f"What did `{report.kind}` find for {report.provenance.network}?",
        answer=tuple(f"{name.strip()}: {value}" for name, value in report.rows()[:6]),
        alarm=False,
        pictures=(("The answer as a picture.", report.plot),),
        tables=(("Detail", report.to_dicts()),),
    )


def _of_error(report: ErrorReport) -> Story:
    return Story(
        question=f"How large is the error of {report.provenance.network} on this accelerator, and where does it come from?",
        answer=tuple(_error_sentences(report)),
        alarm=not report.valid,
        pictures=(("The squared error that each cause and each layer makes alone, with its share of the whole.", report.plot),),
        tables=(("By layer: the error with only this layer's on", report.to_dicts()), ("By cause", _shares(report.by_cause, report.mse))),
    )


def _error_sentences(report: ErrorReport) -> Iterator[str]:
    interval = f" +- {1.96 * report.mse_se:.2g}" if report.mse_se else ""
    yield f"The mean squared error is {report.mse:.4g}{interval}, {_of_variance(report.mse_rel)}."
    layers, causes = (_largest(parts) for parts in (report.by_layer, report.by_cause))
    if layers and causes and report.mse > 0.0:
        yield (
            f"Alone, layer {layers[0]} makes {percent(layers[1] / report.mse, 0)} of it, "
            f"and the cause {causes[0]} {percent(causes[1] / report.mse, 0)}."
        )
    if report.accuracy_clean is not None:
        yield f"Accuracy: {percent(report.accuracy_predicted)} predicted, {percent(report.accuracy_clean)} without errors."
    estimate, tolerance = percent(report.rel_error_estimate), percent(report.tol_rel, 0)
    verdict, lever = ("valid", "") if report.valid else ("NOT valid", " Sample instead: `accelsim validate`.")
    yield f"The prediction calls itself {verdict}: it estimates its own error as {estimate}, its tolerance is {tolerance}.{lever}"


def _of_variance(mse_rel: float) -> str:
    return f"{100.0 * mse_rel:.3g} % of the variance of the clean outputs" if math.isfinite(mse_rel) else "of outputs that do not vary"


def _largest(parts: dict[str, float]) -> tuple[str, float] | None:
    named = [(name, value) for name, value in parts.items() if name != INTERACTION]
    return max(named, key=lambda part: part[1], default=None)


def _shares(parts: dict[str, float], total: float) -> list[dict[str, Any]]:
    return [{"cause": name, "mse": value, "share": value / total if total > 0.0 else 0.0} for name, value in parts.items()]


def _of_trials(report: TrialReport) -> Story:
    return Story(
        question=f"How large is the error of {report.provenance.network} when chips are sampled, and how do they differ?",
        answer=tuple(_trial_sentences(report)),
        alarm=report.stopped_by == "max_trials",
        pictures=(("The squared error of each sampled chip, with the mean and its interval.", report.plot),),
        tables=(),
    )


def _trial_sentences(report: TrialReport) -> Iterator[str]:
    quantiles = report.mse_chip_quantiles
    yield (
        f"The mean squared error is {report.mse:.4g}, {percent(report.confidence, 0)} interval "
        f"{report.ci_low:.4g} to {report.ci_high:.4g}, after {report.n_trials} chips (ended by {report.stopped_by})."
    )
    yield f"9 of 10 chips are between {quantiles.get('0.05', float('nan')):.3g} and {quantiles.get('0.95', float('nan')):.3g}."
    if report.accuracy is not None:
        yield f"Accuracy: {percent(report.accuracy)} on average over chips."


def _of_design(report: DesignReport) -> Story:
    question = f"Which conductances of {report.provenance.network} are best for {report.budget}?"
    pictures: list[tuple[str, Draw]] = [("The best error at each power, the chosen design, and the best common scale.", report.plot)]
    if report.mc is not None:
        pictures.append(("Sampled chips of the design, on images that it was not optimized on.", report.mc.plot))
    return Story(
        question=question,
        answer=tuple(_design_sentences(report)),
        alarm=not report.feasible,
        pictures=tuple(pictures),
        tables=(("The design", _design_records(report)), ("The trade-off", report.to_dicts())),
    )


def _design_sentences(report: DesignReport) -> Iterator[str]:
    if not report.feasible:
        unit = "watt" if report.power_budget_w is not None else None
        shown = [f"{v or 0.0:.4g}" if unit is None else format_quantity(v or 0.0, unit, n_digits=4) for v in (report.floor, report.gap)]
        yield f"None: the least that is possible is {shown[0]}, {shown[1]} above the budget."
        yield from (f"What would help: {lever}" for lever in report.levers)
        return
    power = format_quantity(report.read_power_w or 0.0, "watt", n_digits=4)
    yield f"The design below: a mean squared error of {report.mse:.4g} with {power}."
    if report.saving_total_rel is not None:
        yield f"At equal error it saves {percent(report.saving_total_rel, 1)} of the power of the best common scale."
    if report.duality_gap is not None:
        yield f"It is within {report.duality_gap:.1e} of a proven bound of the model."
    if report.mc is not None:
        yield (
            f"Monte-Carlo on {report.mc.n_inputs} held-out images: {report.mc.mse:.4g} "
            f"({report.mc.ci_low:.4g} to {report.mc.ci_high:.4g}); {report.mse_verify or float('nan'):.4g} was predicted for them."
        )


def _design_records(report: DesignReport) -> list[dict[str, Any]]:
    if report.design is None:
        return []
    return [_layer_of_design(report, name, used) for name, used in report.design.g_used_siemens.items()]


def _layer_of_design(report: DesignReport, name: str, used: float | Sequence[float]) -> dict[str, Any]:
    low, high = (used, used) if isinstance(used, float) else (min(used), max(used))
    assert report.design is not None
    bits = report.design.adc_bits.get(name)
    return {"layer": name, "least_g_used_siemens": float(low), "most_g_used_siemens": float(high)} | ({"adc_bits": bits} if bits else {})


TIME_PICTURES = {
    "stages": "What the stages that work longest do: serving, without room behind them, waiting to begin.",
    "gantt": "When stages work.",
    "power": "Power over time; the area is the energy of the run.",
    "energy": "Energy of one image, by component.",
    "layers": "Energy of one image, by layer and component.",
    "roofline": "Operations a second of each layer over its operations a bit, under the roofs of arrays and buses.",
}


def _of_time(report: TimeReport) -> Story:
    drawn = ("stages", *report.pictures())
    return Story(
        question=f"How fast is {report.provenance.network} on this chip, what does it take, and what limits it?",
        answer=tuple(_time_sentences(report)),
        alarm=False,
        pictures=tuple((caption, partial(report.plot, what=what)) for what, caption in TIME_PICTURES.items() if what in drawn),
        tables=(("Stages", report.to_dicts()), ("Energy by component", _energies(report))),
    )


def _time_sentences(report: TimeReport) -> Iterator[str]:
    latency, interval = (format_quantity(seconds, "second", n_digits=4) for seconds in (report.latency_s, report.ii_s))
    least = "at least " if report.engine == "bound" else ""
    yield f"An image takes {least}{latency}; a result comes every {interval}: {report.throughput_per_s:.4g} images a second."
    working = "arrays work" if report.n_arrays else "multipliers work"
    yield f"{report.bottleneck} sets the interval; {working} {percent(report.utilization, 1)} of the time."
    if report.energy_j:
        largest = max(report.energy_by_component.items(), key=lambda item: item[1])
        share = percent(largest[1] / report.energy_j, 0)
        yield f"An image takes {format_quantity(report.energy_j, 'joule', n_digits=4)}, {share} of it in {largest[0]}."
    if report.area_m2:
        yield f"The chip has {report.area_m2 * 1e6:.4g} mm2."


def _energies(report: TimeReport) -> list[dict[str, Any]]:
    parts = sorted(report.energy_by_component.items(), key=lambda item: -item[1])
    return [{"component": name, "energy_j": value, "share": value / report.energy_j if report.energy_j else 0.0} for name, value in parts]


def _of_evaluation(report: Evaluation) -> Story:
    error, time = _of_error(report.error), _of_time(report.time)
    return Story(
        question=f"What do error, accuracy, time and energy of {report.provenance.network} come to on this chip?",
        answer=(*error.answer, *time.answer),
        alarm=error.alarm,
        pictures=(("Each layer's share of error, energy and work.", report.plot), *error.pictures, *time.pictures),
        tables=(*error.tables, *time.tables),
    )


def _of_diagnosis(report: Diagnosis) -> Story:
    error = _of_error(report.error)
    return Story(
        question=f"Why is the accuracy of {report.provenance.network} what it is here?",
        answer=(report.answer, *(f"Also: {finding.what}." for finding in report.alarms[1:])),
        alarm=bool(report.alarms),
        pictures=(("How the error grows from layer to layer, and what each layer adds.", report.plot), *error.pictures),
        tables=(
            ("Findings, in the order in which they must be mended", [asdict(finding) for finding in report.findings]),
            ("What would help, predicted", [asdict(one) for one in report.remedies]),
            ("Inputs taken otherwise, on the float network", [asdict(one) for one in report.tries]),
            ("By layer, on sampled chips", report.to_dicts()),
        ),
    )


def _of_training(report: TrainingReport) -> Story:
    return Story(
        question=f"How well does {report.provenance.network} do with wrong bits in its memory, and what do its reads take?",
        answer=tuple(_training_sentences(report)),
        alarm=False,
        pictures=(("Accuracy in training and energy of the reads, epoch by epoch.", report.plot),) if report.history else (),
        tables=(("By layer", report.to_dicts()), ("By epoch", list(report.history))),
    )


def _training_sentences(report: TrainingReport) -> Iterator[str]:
    yield (
        f"Accuracy: {percent(report.accuracy)} +- {percent(report.accuracy_half_width)} over {report.n_draws} draws of wrong bits on "
        f"{report.n_test_images:,} test images; {percent(report.accuracy_right)} without a wrong bit."
    )
    if report.energy_rel > 0.0:
        yield f"Its reads take {report.energy_rel:.4g} of energy 1, {1.0 / report.energy_rel:.3g} times less: {report.energy_reference}."
    rates = sorted((max(row["error_rates_p"]), row["layer"]) for row in report.layers)
    if rates:
        (least, first), (most, last) = rates[0], rates[-1]
        yield f"Error rates of a bit go from {least:.3g} in {first} to {most:.3g} in {last}."


_TELLERS: dict[type[Report], Callable[[Any], Story]] = {
    ErrorReport: _of_error,
    TrialReport: _of_trials,
    DesignReport: _of_design,
    TimeReport: _of_time,
    Evaluation: _of_evaluation,
    Diagnosis: _of_diagnosis,
    SweepReport: of_sweep,
    ExploreReport: of_explore,
    TrainingReport: _of_training,
}
