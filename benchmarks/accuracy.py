"""Predicted accuracy beside Monte-Carlo's, over programming errors from small to where the network fails.

Monte-Carlo's accuracy is a mean over programmings of the same images, so its standard error is that of the chips.
"""

import tempfile
from pathlib import Path

import numpy as np

from accelsim import Plan, Samples, monte_carlo, predict
from benchmarks.samplers import placed
from validation.tables import Row

NETWORKS = ("fashion_cnn", "digit_cnn")
LEVELS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4)
N_TRIALS, SEED = 400, 13
BAR, FLOOR = 0.01, 0.6
"""A prediction is to be this close wherever the sampled accuracy is above the floor; levels end below it."""


def rows(name: str, *, n_images: int = 1000) -> list[Row]:
    """Return a row a level and kind of cells, as long as accuracy is above the floor, and the first one below."""
    table: list[Row] = []
    for clip in (True, False):
        for error_rel in LEVELS:
            table.append(_row(name, n_images=n_images, error_rel=error_rel, clip=clip))
            if float(table[-1]["sampled"]) < FLOOR:
                break
    return table


def _row(name: str, *, n_images: int, error_rel: float, clip: bool) -> Row:
    plan, samples = placed(name, n_images, error_rel=error_rel, clip=clip)
    report = predict(plan, samples, seed=SEED)
    sampled, se = sampled_accuracy(plan, samples)
    predicted = report.accuracy_predicted
    assert predicted is not None  # all images have labels
    return {
        "network": name,
        "cells": "clipped" if clip else "unclipped",
        "error_rel": f"{error_rel:g}",
        "mse_rel": f"{report.mse_rel:.3g}",
        "used": report.method,
        "clean": f"{report.accuracy_clean:.4f}",
        "sampled": f"{sampled:.4f}",
        "sampled_se": f"{se:.4f}",
        "predicted": f"{predicted:.4f}",
        "off_points": f"{100.0 * (predicted - sampled):+.2f}",
        "within": "" if sampled < FLOOR else abs(predicted - sampled) <= BAR,
    }


def sampled_accuracy(plan: Plan, samples: Samples) -> tuple[float, float]:
    """Return the mean accuracy over programmings, and its standard error over chips."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder, "trials.npz")
        monte_carlo(
            plan, samples, seed=SEED + 1, rel_error=1e-9, max_trials=N_TRIALS, threads=1, control_variate=False, checkpoint=kept
        )
        with np.load(kept) as stored:
            by_chip = stored["n_correct"] / len(samples)
    return float(by_chip.mean()), float(by_chip.std(ddof=1) / np.sqrt(len(by_chip)))
