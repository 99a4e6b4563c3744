"""Whether predictions agree with Monte-Carlo, over the noise."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from accelsim.plot.error import ErrorParts, Trials
from accelsim.plot.style import BLUE, SKY, VERMILION, axes_for, light_frame, title
from devices.base.errors import SpecError
from devices.base.quantity import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_agreement(
    error_rel: Sequence[float], predictions: Sequence[ErrorParts], trials: Sequence[Trials], ax: "Axes | None" = None
) -> "Axes":
    """Draw predicted and sampled MSE over the noise on logarithmic axes; a prediction that calls itself not valid is hollow.

    The three sequences go together: element `i` of each is for the noise `error_rel[i]`.
    """
    if not len(error_rel) == len(predictions) == len(trials) or not len(error_rel):
        raise SpecError(f"need as many noise levels, predictions and trials, got {len(error_rel)}, {len(predictions)} and {len(trials)}")
    ax = axes_for(ax)
    order = np.argsort(error_rel)
    noise = 100.0 * np.asarray(error_rel, dtype=float)[order]
    ordered = [predictions[i] for i in order]
    _draw_predictions(ax, noise, ordered)
    _draw_trials(ax, noise, [trials[i] for i in order])
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("programming error (% of the conductance range)")
    ax.set_ylabel("MSE (output units squared)")
    light_frame(ax)
    ax.legend(frameon=False, fontsize=9)
    worst = max(abs(p.mse / t.mse - 1.0) if t.mse > 0.0 else 0.0 for p, t in zip(predictions, trials))
    title(
        ax, f"{predictions[0].provenance.network}: predictions within {percent(worst, 1)} of Monte-Carlo", note=_note(predictions, trials)
    )
    return ax


def _note(predictions: Sequence[ErrorParts], trials: Sequence[Trials]) -> str:
    refused = sum(not report.valid for report in predictions)
    outside = [abs(p.mse / t.mse - 1.0) for p, t in zip(predictions, trials) if p.valid and t.mse > 0.0]
    if not refused:
        return f"all {len(predictions)} predictions call themselves valid"
    return f"{refused} of {len(predictions)} call themselves not valid; the others are within {percent(max(outside, default=0.0), 1)}"


def _draw_predictions(ax: "Axes", noise: np.ndarray, predictions: Sequence[ErrorParts]) -> None:
    mse = np.array([report.mse for report in predictions])
    valid = np.array([report.valid for report in predictions])
    ax.plot(noise, mse, color=BLUE, linewidth=1.5, zorder=2)
    if valid.any():
        ax.plot(noise[valid], mse[valid], "o", color=BLUE, markersize=11, label="predicted, valid", zorder=3, markerfacecolor=SKY)
    if not valid.all():
        hollow, label = "white", "predicted, says it is not valid"
        ax.plot(noise[~valid], mse[~valid], "o", color=BLUE, markersize=11, label=label, zorder=3, markerfacecolor=hollow)


def _draw_trials(ax: "Axes", noise: np.ndarray, trials: Sequence[Trials]) -> None:
    mse = np.array([report.mse for report in trials])
    below = np.array([report.mse - report.ci_low for report in trials])
    above = np.array([report.ci_high - report.mse for report in trials])
    confidence = percent(trials[0].confidence, 0)
    ax.errorbar(
        noise, mse, yerr=(below, above), fmt="x", color=VERMILION, capsize=4, markersize=7, markeredgewidth=1.8, zorder=4,
        label=f"Monte-Carlo with {confidence} interval",
    )  # fmt: skip
