"""A search: its trials and their front over two objectives, or the best so far."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from accelsim.plot.style import BLUE, GREY, SKY, VERMILION, axes_for, light_frame, title
from accelsim.plot.sweep import name_value_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_front(
    trials: Sequence[tuple[float, float, bool]], front: Sequence[tuple[float, float]], *, x_name: str, y_name: str, n_objectives: int,
    note: str, ax: "Axes | None" = None,
) -> "Axes":  # fmt: skip
    """Draw trials (x, y, whether they meet the constraints) and those on the front."""
    ax = axes_for(ax)
    every = np.array([(x, y) for x, y, _ in trials]).reshape(-1, 2)
    good = np.array([feasible for *_, feasible in trials], dtype=bool)
    if not good.all():
        ax.plot(*every[~good].T, "x", color=GREY, markersize=5, label="beyond a constraint", zorder=2)
    ax.plot(*every[good].T, "o", color=SKY, markersize=5, label="trials", zorder=3)
    best = np.array(front).reshape(-1, 2)
    style = "o-" if n_objectives == 2 else "o"  # a front over more than two objectives is no line in two
    ax.plot(*best.T, style, color=BLUE, linewidth=1.6, markersize=7, label="front", zorder=4)
    name_value_axis(ax.xaxis, every[:, 0], x_name)
    name_value_axis(ax.yaxis, every[:, 1], y_name)
    light_frame(ax)
    ax.legend(frameon=False, fontsize=9, loc="best")
    title(ax, f"{len(best)} of {len(every)} trials are on the front" if len(best) else "No trial meets the constraints", note=note)
    return ax


def plot_best(
    trials: Sequence[tuple[int, float]], *, name: str, largest: bool, note: str, ax: "Axes | None" = None
) -> "Axes":
    """Draw feasible trials (number, value) and the best so far."""
    ax = axes_for(ax)
    numbers, values = np.array(trials).reshape(-1, 2).T
    ax.plot(numbers, values, "o", color=SKY, markersize=5, label="trials", zorder=2)
    best = np.maximum.accumulate(values) if largest else np.minimum.accumulate(values)
    ax.step(numbers, best, where="post", color=VERMILION, linewidth=1.8, label="best so far", zorder=3)
    ax.set_xlabel("trial")
    name_value_axis(ax.yaxis, values, name)
    light_frame(ax)
    ax.legend(frameon=False, fontsize=9, loc="best")
    title(ax, f"Best {name} {best[-1]:.4g}" if len(best) else "No trial meets the constraints", note=note)
    return ax
