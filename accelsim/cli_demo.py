"""`accelsim demo`: the whole story on an embedded network, told in plain words."""

import argparse
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelsim.accelerator import Accelerator
from accelsim.cli_answers import FINE, INTERRUPTED, NO, answer, check_out
from accelsim.cli_inputs import N_CALIBRATION, seed_of
from accelsim.cli_terminal import TrialProgress, say
from accelsim.optimizer.optimize import optimize
from accelsim.placement import Plan, place
from accelsim.plot.weights import save_weights
from accelsim.prediction.predict import predict
from accelsim.report.base import Report
from accelsim.report.design_report import DesignReport
from accelsim.report.records import INTERACTION, Agreement, ErrorReport, TrialReport
from accelsim.report.run_folder import new_folder, write_runs
from accelsim.sampling.monte_carlo import monte_carlo
from devices.base.quantity import format_quantity, percent
from workloads.samples import Samples
from workloads.zoo import load_embedded

NETWORK, PRESET = "fashion_cnn", "memse"
BUDGET_SHARE = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is computed: images for each step, and how well Monte-Carlo has to know."""

    n_images: int
    rel_error: float
    max_trials: int


FULL = Size(n_images=128, rel_error=0.015, max_trials=2_000)
QUICK = Size(n_images=64, rel_error=0.03, max_trials=400)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Answers:
    plan: Plan
    predicted: ErrorReport
    trials: TrialReport
    agreement: Agreement
    optimum: DesignReport

    def reports(self) -> dict[str, Report]:
        return {"predicted": self.predicted, "trials": self.trials, "optimum": self.optimum}


def demo(options: argparse.Namespace) -> int:
    """Predict, check by Monte-Carlo and optimize `fashion_cnn`; tell the story; return the exit code."""
    check_out(options)
    seed, size = seed_of(options), QUICK if options.quick else FULL
    answers = _answers(seed, size, options.threads)
    if options.out is not None:
        with _step("writing run folders and pictures"), new_folder(options.out) as inside:
            write_runs(answers.reports(), inside, command=options.command_line, figure=True)
            save_weights(answers.plan, answers.plan.layers[0].name, seed=seed, path=inside / "weights.png")
    answer(options, text=_story(answers, out=options.out), record=_record(answers))
    if "interrupt" in (answers.trials.stopped_by, answers.optimum.mc and answers.optimum.mc.stopped_by):
        return INTERRUPTED
    return FINE if answers.agreement.agrees and answers.optimum.feasible else NO


def _answers(seed: int, size: Size, threads: int | None) -> _Answers:
    with _step(f"loading {NETWORK} and placing it on {PRESET}"):
        network, samples = load_embedded(NETWORK)
        plan = place(network, Accelerator.preset(PRESET), calibration=samples[:N_CALIBRATION])
        images, held_out = _split(samples, size.n_images)
    with _step("predicting the error (a first run compiles for some seconds)"):
        predicted = predict(plan, images, seed=seed)
    limits: dict[str, Any] = {"threads": threads}
    with _step("checking by Monte-Carlo") as progress:
        trials = monte_carlo(plan, images, seed=seed, rel_error=size.rel_error, max_trials=size.max_trials, progress=progress, **limits)
    with _step("optimizing under a power budget, and checking that") as progress:
        optimum = optimize(
            plan,
            images,
            verify=held_out,
            seed=seed,
            power_budget_w=BUDGET_SHARE * predicted.read_power_w,
            mc_rel_error=2.0 * size.rel_error,
            mc_max_trials=size.max_trials,
            progress=progress,
            **limits,
        )
    return _Answers(plan=plan, predicted=predicted, trials=trials, agreement=trials.agreement_with(predicted), optimum=optimum)


def _split(samples: Samples, n_images: int) -> tuple[Samples, Samples]:
    """Return images to work on and others to verify on; neither was calibrated on."""
    middle = N_CALIBRATION + n_images
    return samples[N_CALIBRATION:middle], samples[middle : middle + n_images]


@contextmanager
def _step(what: str) -> Iterator[TrialProgress]:
    say(f"... {what}")
    started, progress = time.monotonic(), TrialProgress("    Monte-Carlo")
    try:
        yield progress
    finally:
        progress.close()
    say(f"    {time.monotonic() - started:.1f} s")


def _record(answers: _Answers) -> Mapping[str, Any]:
    head = answers.predicted.to_json_dict()
    shared = {name: head[name] for name in ("schema", "version", "seed", "network", "spec_digest", "output", "reference", "warnings")}
    mc = answers.trials.numbers() | answers.agreement.numbers()
    return {**shared, "kind": "demo", "predicted": answers.predicted.numbers(), "mc": mc, "optimum": answers.optimum.numbers()}


def _story(answers: _Answers, *, out: str | None) -> str:
    parts = [_scene(answers), _prediction(answers.predicted), _check(answers), _choice(answers), _next(answers, out)]
    return "\n\n".join(parts)


def _scene(answers: _Answers) -> str:
    report = answers.predicted
    n_weights = sum(layer.operator.weights.size for layer in answers.plan.layers)
    return (
        f"THE NETWORK  {NETWORK} tells ten kinds of clothes apart: {percent(report.accuracy_clean, 1)} of {report.n_inputs} test images.\n"
        f"Its {n_weights:,} weights are stored as pairs of conductances in memristor arrays (preset {PRESET}):\n{_lines(report.meaning)}"
    )


def _prediction(report: ErrorReport) -> str:
    alone = {name: value for name, value in report.by_layer.items() if name != INTERACTION}
    layer = max(alone, key=alone.__getitem__)
    share = percent(alone[layer] / report.mse if report.mse > 0.0 else 0.0, 0)
    return (
        f"PREDICTED    In {report.elapsed_s:.1f} s, by the method {report.method!r}: a mean squared error of {report.mse:.4g}\n"
        f"(+- {percent(report.rel_error_estimate, 1)} by its own estimate), "
        f"{percent(report.mse_rel)} of the variance of the outputs; layer {layer!r} alone makes {share} of it. Reading the arrays takes "
        f"{_watts(report.read_power_w)}.\n"
        f"Of the images, {percent(report.accuracy_predicted, 1)} are still told right."
    )


def _check(answers: _Answers) -> str:
    trials, half = answers.trials, 0.0
    if trials.mse > 0.0:
        half = 0.5 * (trials.ci_high - trials.ci_low) / trials.mse
    return (
        f"CHECKED      In {trials.elapsed_s:.1f} s, {trials.n_trials} chips programmed at random: {trials.mse:.4g} +- {percent(half, 1)}.\n"
        f"{answers.agreement}."
    )


def _choice(answers: _Answers) -> str:
    best, budget = answers.optimum, _watts(answers.optimum.power_budget_w or 0.0)
    opening = f"OPTIMIZED    Only {budget} is there, {percent(BUDGET_SHARE, 0)} of that. "
    if not best.feasible or best.design is None or best.mse is None or best.read_power_w is None:
        return opening + "No design meets it.\n" + _lines(best.levers)
    lines = [f"The best scale for each layer has an error of {best.mse:.4g}", *_against_common(best), *_verdict(best)]
    used = [f"{name} {format_quantity(g, 'siemens', n_digits=3)}" for name, g in best.design.g_used_siemens.items() if isinstance(g, float)]
    return opening + "\n".join(lines) + f"\nLargest conductance by layer: {', '.join(used)}."


def _against_common(best: DesignReport) -> list[str]:
    if best.baseline is None or best.baseline.mse is None or not best.mse:
        return []
    less = f"at this power; one scale for all layers has {best.baseline.mse:.4g}, {percent(best.baseline.mse / best.mse - 1.0, 1)} more."
    if best.saving_total_rel is None:
        return [less]
    return [less, f"For equal error, one scale for all would need more power: the design saves {percent(best.saving_total_rel, 1)}."]


def _verdict(best: DesignReport) -> list[str]:
    if best.mc is None:
        return []
    return [
        f"Monte-Carlo on {best.mc.n_inputs} other images: error {best.mc.mse:.4g} ({best.mc.ci_low:.4g} to {best.mc.ci_high:.4g}), "
        f"predicted {best.predicted_verify()},\n"
        f"power {_watts(best.mc.read_power_w)}."
    ]


def _next(answers: _Answers, out: str | None) -> str:
    where = f"Run folders and pictures are in {out}.\n" if out is not None else "With --out DIR, run folders and pictures are written.\n"
    page = f"  accelsim report {Path(out) / 'optimum'}   the design as a page for a browser\n" if out is not None else ""
    return (
        f"NEXT         {where}{page}"
        "  accelsim spec memse --out my_chip.toml                                    a spec to edit\n"
        "  accelsim predict my_net.onnx --inputs my_images.npz --spec my_chip.toml   your network on your chip"
    )


def _watts(power_w: float) -> str:
    return format_quantity(power_w, "watt", n_digits=4)


def _lines(texts: tuple[str, ...]) -> str:
    return "\n".join(f"  {text}" for text in texts)
