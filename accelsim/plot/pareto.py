"""Error over power: the whole trade-off, and the design that was chosen."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from accelsim.plot.style import BLUE, GREY, ORANGE, VERMILION, axes_for, light_frame, positive, scale_for, title
from devices.base.errors import SpecError
from devices.base.quantity import format_quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point: TypeAlias = tuple[float, float]
"""Power in watts, MSE."""
_SCALES = (("pW", 1e-12), ("nW", 1e-9), ("uW", 1e-6), ("mW", 1e-3), ("W", 1.0))


def plot_pareto(
    power_w: Sequence[float] | np.ndarray,
    mse: Sequence[float] | np.ndarray,
    *,
    chosen: Point | None = None,
    baseline: Point | None = None,
    budget_w: float | None = None,
    mse_budget: float | None = None,
    heading: str = "",
    note: str = "",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the curve of best designs, the chosen one, the best common scale (baseline), and the budget."""
    power, error = np.asarray(power_w, dtype=float), np.asarray(mse, dtype=float)
    if power.shape != error.shape or power.ndim != 1:
        raise SpecError(f"need as many powers as errors, got shapes {power.shape} and {error.shape}")
    ax = axes_for(ax)
    shown = positive(power) & positive(error)
    marks = [point for point in (chosen, baseline, (budget_w or 0.0, mse_budget or 0.0)) if point is not None]
    symbol, unit = _scale(np.concatenate([power[shown], [mark[0] for mark in marks]]))
    ax.plot(power[shown] / unit, error[shown], color=BLUE, linewidth=2.0, label="best designs", zorder=2)
    if baseline is not None:
        ax.plot(baseline[0] / unit, baseline[1], "s", color=ORANGE, markersize=9, label="best common scale", zorder=3)
    if chosen is not None:
        ax.plot(chosen[0] / unit, chosen[1], "*", color=VERMILION, markersize=17, label="chosen design", zorder=4)
    if budget_w is not None:
        ax.axvline(budget_w / unit, color=GREY, linestyle="--", linewidth=1.2, label="power budget")
    if mse_budget is not None:
        ax.axhline(mse_budget, color=GREY, linestyle="--", linewidth=1.2, label="error budget")
    ax.set_xscale(scale_for(power[shown], tuple(mark[0] for mark in marks)))
    ax.set_yscale(scale_for(error[shown], tuple(mark[1] for mark in marks)))
    ax.set_xlabel(f"read power ({symbol})")
    ax.set_ylabel("MSE (output units squared)")
    light_frame(ax)
    ax.legend(frameon=False, fontsize=9, loc="best")
    title(ax, heading or _heading(chosen, baseline), note=note)
    return ax


def _scale(power_w: np.ndarray) -> tuple[str, float]:
    """Return the unit in which the largest power has one to three digits before the point."""
    largest = float(np.max(power_w, initial=0.0))
    fitting = [entry for entry in _SCALES if entry[1] <= largest]
    return fitting[-1] if fitting else _SCALES[0]


def _heading(chosen: Point | None, baseline: Point | None) -> str:
    if chosen is None:
        return "Error that power buys"
    text = f"MSE {chosen[1]:.3g} at {format_quantity(chosen[0], 'watt', n_digits=3)}"
    if baseline is None or baseline[1] <= 0.0:
        return text
    if abs(chosen[0] / baseline[0] - 1.0) < 0.01:
        return f"{text}, {100 * (1 - chosen[1] / baseline[1]):.0f} % less error than the best common scale"
    return f"{text}, {100 * (1 - chosen[0] / baseline[0]):.0f} % less power than the best common scale"
