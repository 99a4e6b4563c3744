"""Measured cells beside the law that was fitted to them."""

from typing import TYPE_CHECKING

import numpy as np

from accelsim.plot.style import BLUE, VERMILION, axes_for, light_frame, title
from devices.fit import Fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_fit(fit: Fit, ax: "Axes | None" = None) -> "Axes":
    """Draw each state's standard deviation with its 95 % interval, and the fitted law's with clipping in it."""
    ax = axes_for(ax)
    targets = 1e6 * np.array([s.target_siemens for s in fit.states])
    stds = 1e6 * np.array([s.std_siemens for s in fit.states])
    error = 1.96 * stds / np.sqrt(2.0 * np.maximum([s.n - 1 for s in fit.states], 1))
    states = np.linspace(0.0, fit.g_max_siemens, 300)
    moments = fit.law.moments(states[1:], fit.g_max_siemens)
    ax.plot(1e6 * states[1:], 1e6 * np.sqrt(moments.variance_siemens2), color=BLUE, linewidth=1.8, label=f"law: {fit.label}")
    ax.errorbar(targets, stds, yerr=error, fmt="o", color=VERMILION, capsize=3, markersize=5, label="measured, with 95 % interval")
    ax.set_xlabel("target conductance (uS)")
    ax.set_ylabel("standard deviation (uS)")
    ax.set_ylim(bottom=0.0)
    light_frame(ax)
    ax.legend(frameon=False, fontsize=9)
    fits = "" if fit.p_value is None else f", p = {fit.p_value:.2g}"
    title(ax, f"Programming error: {fit.label}", note=f"{fit.n} measurements at {len(fit.states)} states{fits}")
    return ax
