"""Where the error comes from, and how it spreads over chips."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np

from accelsim.plot.style import BLUE, GREEN, GREY, ORANGE, VERMILION, Source, axes_for, light_frame, short, title
from devices.base.quantity import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_BARS = 20
_INTERACTION = "interaction"


class ErrorParts(Protocol):
    """What pictures read of a predicted error."""

    @property
    def provenance(self) -> Source: ...
    @property
    def mse(self) -> float: ...
    @property
    def mse_rel(self) -> float: ...
    @property
    def by_layer(self) -> Mapping[str, float]: ...
    @property
    def by_cause(self) -> Mapping[str, float]: ...
    @property
    def method(self) -> str: ...
    @property
    def valid(self) -> bool: ...


class Trials(Protocol):
    """What pictures read of a sampled error."""

    @property
    def provenance(self) -> Source: ...
    @property
    def losses(self) -> np.ndarray: ...
    @property
    def mse(self) -> float: ...
    @property
    def ci_low(self) -> float: ...
    @property
    def ci_high(self) -> float: ...
    @property
    def confidence(self) -> float: ...
    @property
    def mse_chip_quantiles(self) -> Mapping[str, float]: ...
    @property
    def n_trials(self) -> int: ...
    @property
    def n_inputs(self) -> int: ...
    @property
    def stopped_by(self) -> str: ...


def plot_error_report(report: ErrorParts, ax: "Axes | None" = None) -> "Axes":
    """Draw the MSE with only one cause or one layer on, as horizontal bars, with its share of the total."""
    causes, layers = _parts(report.by_cause), _parts(report.by_layer)
    bars = [*((f"cause: {name}", value, ORANGE) for name, value in causes), *((name, value, BLUE) for name, value in layers)]
    ax = axes_for(ax, height=1.6 + 0.32 * len(bars))
    places = np.arange(len(bars))
    values = np.array([value for _, value, _ in bars])
    ax.barh(places, values, color=[GREY if name.endswith(_INTERACTION) else color for name, _, color in bars], height=0.72)
    ax.set_yticks(places, [short(name) for name, _, _ in bars])
    ax.invert_yaxis()
    if causes and layers:
        ax.axhline(len(causes) - 0.5, color="0.6", linewidth=0.8)
    _label_shares(ax, values, report.mse)
    ax.set_xlabel("MSE with only this source on (output units squared)")
    light_frame(ax, grid="x")
    title(ax, _error_title(report), note=_error_note(report))
    return ax


def _parts(by_name: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the sources from large to small, the smallest summed up, the interaction last."""
    named = sorted(((n, v) for n, v in by_name.items() if n != _INTERACTION), key=lambda part: -part[1])
    shown, rest = named[:MAX_BARS], named[MAX_BARS:]
    if rest:
        shown.append((f"{len(rest)} others", sum(value for _, value in rest)))
    interaction = by_name.get(_INTERACTION, 0.0)
    total = sum(abs(value) for value in by_name.values())
    return [*shown, (_INTERACTION, interaction)] if abs(interaction) > 1e-9 * total else shown


def _label_shares(ax: "Axes", values: np.ndarray, total: float) -> None:
    span = max(float(np.max(values, initial=0.0)) - min(float(np.min(values, initial=0.0)), 0.0), 1e-300)
    for place, value in enumerate(values):
        share = percent(value / total, 1) if total > 0.0 else "-"
        ax.annotate(share, (max(value, 0.0), place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)
    ax.set_xlim(min(1.15 * float(np.min(values, initial=0.0)), 0.0), max(float(np.max(values, initial=0.0)), 0.0) + 0.16 * span)


def _error_title(report: ErrorParts) -> str:
    layers = _parts(report.by_layer)
    named = [(n, v) for n, v in layers if n != _INTERACTION]
    if not named or report.mse <= 0.0:
        return f"{report.provenance.network}: no error"
    name, value = named[0]
    return f"{short(name)} alone makes {percent(value / report.mse, 0)} of the error"


def _error_note(report: ErrorParts) -> str:
    verdict = "valid" if report.valid else "NOT valid"
    return (
        f"{report.provenance.network}: MSE {report.mse:.3g}, {percent(report.mse_rel)} of the outputs' variance; {report.method}, {verdict}"
    )


def plot_trial_report(report: Trials, ax: "Axes | None" = None) -> "Axes":
    """Draw the MSE of each sampled chip as a histogram, with the mean and its interval."""
    ax = axes_for(ax)
    losses = report.losses[np.isfinite(report.losses)]
    if len(losses):
        ax.hist(losses, bins=_n_bins(len(losses)), color=BLUE, alpha=0.75, edgecolor="white", linewidth=0.4)
    ax.axvspan(report.ci_low, report.ci_high, color=ORANGE, alpha=0.5, label=f"its {percent(report.confidence, 0)} interval")
    ax.axvline(report.mse, color=VERMILION, linewidth=1.8, label=f"mean {report.mse:.4g}")
    _mark_quantiles(ax, report.mse_chip_quantiles)
    ax.set_xlabel("MSE of one programmed chip (output units squared)")
    ax.set_ylabel("sampled chips")
    light_frame(ax, grid="y")
    ax.legend(frameon=False, fontsize=9, loc="upper right")
    half = (report.ci_high - report.ci_low) / 2.0 / report.mse if report.mse > 0.0 else 0.0
    note = f"{report.n_trials} chips, {report.n_inputs} images, ended by {report.stopped_by}"
    title(ax, f"{report.provenance.network}: mean MSE {report.mse:.4g} +- {percent(half, 1)}", note=note)
    return ax


def _mark_quantiles(ax: "Axes", quantiles: Mapping[str, float]) -> None:
    low, high = quantiles.get("0.05", np.nan), quantiles.get("0.95", np.nan)
    if np.isfinite(low) and np.isfinite(high):
        label = "5 % and 95 % of chips"
        for value, text in ((low, label), (high, None)):
            ax.axvline(value, color=GREEN, linestyle="--", linewidth=1.2, label=text)


def _n_bins(n_values: int) -> int:
    return int(np.clip(np.sqrt(n_values), 8, 60))
