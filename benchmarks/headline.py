"""What it takes to know the output's mean squared error: predictions beside the Monte-Carlo runs that they spare.

The question is the same for all: the MSE of 64 images over programmings, to 2 % (half-width, 98 % confidence). A run with control
variate is timed whole, with what it prepares; plain trials are counted, (2.326 sd / 0.02 mean)^2, and timed by a pilot that counts.
Predictions are whole calls: with their own error estimate, power, accuracy and, but for the one that says so, attribution.
"""

from collections.abc import Callable, Mapping
from typing import Any

from accelsim import ErrorReport, Plan, Samples, TrialReport, monte_carlo, predict
from benchmarks.clock import interleaved
from benchmarks.samplers import CONFIDENCE, HALF_WIDTH, OURS, SEED, TORCH, TUNED, Sampler, placed, timed_samplers
from validation.tables import Row

NETWORKS = ("fashion_cnn", "fashion_resnet", "resnet8_cifar10", "resnet20_cifar10")
QUESTIONS: Mapping[str, dict[str, Any]] = {
    "adjoint": {"method": "adjoint"},
    "adjoint, no attribution": {"method": "adjoint", "attribution": False},
    "sketched": {"method": "sketched"},
    "auto": {"method": "auto"},
}
CONTROLLED = "Monte-Carlo"
TITLES = {OURS: "Monte-Carlo, no control", TORCH: "PyTorch", TUNED: "PyTorch, tuned"}
PILOT_TURNS, TURNS = 60, 3


def rows(name: str, *, n_images: int, error_rel: float, clip: bool) -> list[Row]:
    """Return the table of one network: a row a way to know the MSE."""
    plan, samples = placed(name, n_images, error_rel=error_rel, clip=clip)
    samplers = timed_samplers(plan, samples, n_turns=PILOT_TURNS)
    times, sampled, predicted = _asked(plan, samples)
    cells = "clipped" if clip else "unclipped"
    common = {"network": name, "cells": cells, "error_rel": f"{error_rel:g}", "mse_rel": f"{sampled.mse_rel:.3g}"}
    table = [_row(way, times[way], report.mse / sampled.mse, used=report.method, valid=report.valid) for way, report in predicted.items()]
    table.append(_row(CONTROLLED, times[CONTROLLED], 1.0, n_trials=sampled.n_trials))
    table += [_row(TITLES[who], one.total_s, one.mean / sampled.mse, n_trials=one.n_trials) for who, one in samplers.items()]
    return [common | row | _compared(float(row["cpu_s"]), samplers) for row in table]


def _asked(plan: Plan, samples: Samples) -> tuple[dict[str, float], TrialReport, dict[str, ErrorReport]]:
    """Return the CPU time of each question, the run with control variate, which is the truth of the table, and the predictions."""

    def sample() -> TrialReport:
        return monte_carlo(plan, samples, seed=SEED + 1, rel_error=HALF_WIDTH, confidence=CONFIDENCE, threads=1)

    def ask(way: str) -> Callable[[], ErrorReport]:
        return lambda: predict(plan, samples, seed=SEED, **QUESTIONS[way])

    questions = {way: ask(way) for way in QUESTIONS}
    times = interleaved({**questions, CONTROLLED: sample}, n=TURNS)
    return times, sample(), {way: question() for way, question in questions.items()}


def _row(way: str, seconds: float, ratio: float, *, n_trials: object = "", used: str = "", valid: object = "") -> Row:
    return {"way": way, "cpu_s": f"{seconds:.3g}", "n_trials": n_trials, "mse_over_sampled": f"{ratio:.3f}", "used": used, "valid": valid}


def _compared(seconds: float, samplers: Mapping[str, Sampler]) -> Row:
    """Return how many times longer PyTorch's runs take."""
    kinds = {"times_pytorch": TORCH, "times_tuned": TUNED}
    return {kind: f"{samplers[who].total_s / seconds:.3g}" if who in samplers else "" for kind, who in kinds.items()}


def brief(table: list[Row]) -> list[Row]:
    """Return a line a network and kind of cells with the CPU time of each way, for the README."""
    lines: dict[tuple[str, ...], Row] = {}
    for row in table:
        key = {name: row[name] for name in ("network", "cells", "mse_rel")}
        lines.setdefault(tuple(key.values()), key)[row["way"]] = f"{row['cpu_s']} s"
    return list(lines.values())
