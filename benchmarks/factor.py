"""What the control variate is worth over noise: plain trials that one controlled trial replaces, and trials to a 1 % half-width."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from accelsim import monte_carlo
from accelsim.plot.style import BLUE, GREY, ORANGE, axes_for, light_frame, title
from benchmarks.samplers import SEED, placed
from validation.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NETWORKS = ("fashion_cnn", "fashion_resnet", "resnet8_cifar10")
LEVELS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05)
N_TRIALS, HALF_WIDTH, QUANTILE = 400, 0.01, 1.96
"""Trials a point; the interval that trials are counted to, and the normal quantile of its 95 %."""


def rows(name: str, *, n_images: int) -> list[Row]:
    """Return one row a noise level, clipped and not."""
    return [_row(name, n_images=n_images, error_rel=error_rel, clip=clip) for clip in (True, False) for error_rel in LEVELS]


def _row(name: str, *, n_images: int, error_rel: float, clip: bool) -> Row:
    plan, samples = placed(name, n_images, error_rel=error_rel, clip=clip)
    found = monte_carlo(plan, samples, seed=SEED, rel_error=1e-6, max_trials=N_TRIALS, threads=1)
    spread = float(found.losses.std(ddof=1)) / float(found.losses.mean())
    plain = (QUANTILE * spread / HALF_WIDTH) ** 2
    return {
        "network": name,
        "cells": "clipped" if clip else "unclipped",
        "error_rel": f"{error_rel:g}",
        "mse_rel": f"{found.mse_rel:.3g}",
        "variance_factor": f"{found.variance_factor:.3g}",
        "plain_trials": f"{plain:.0f}",
        "our_trials": f"{plain / found.variance_factor:.0f}",
    }


def draw(table: list[Row], ax: "Axes | None" = None) -> "Axes":
    """Draw the factor over relative MSE, one line a network and kind of cell."""
    ax = axes_for(ax)
    colours = dict(zip(NETWORKS, (BLUE, ORANGE, "#009E73")))
    for name in dict.fromkeys(str(row["network"]) for row in table):
        for cells, style in (("clipped", "-o"), ("unclipped", "--s")):
            chosen = [row for row in table if row["network"] == name and row["cells"] == cells]
            x, y = (np.array([float(row[key]) for row in chosen]) for key in ("mse_rel", "variance_factor"))
            ax.plot(x, y, style, color=colours.get(name, GREY), markersize=4, label=f"{name}, {cells}")
    ax.axhline(10.0, color=GREY, linewidth=1.0, linestyle=":")
    ax.axvline(5e-3, color=GREY, linewidth=1.0, linestyle=":")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("relative MSE")
    ax.set_ylabel("plain trials that one of ours replaces")
    light_frame(ax)
    ax.legend(frameon=False, fontsize=8)
    title(ax, "The linear response as control variate", note=f"{N_TRIALS} trials a point; dotted: 10 times, relative MSE 0.005")
    return ax


def save(table: list[Row], path: Path) -> None:
    """Write the picture."""
    ax = draw(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    ax.figure.savefig(path, dpi=150)  # type: ignore[union-attr]
