"""One picture of where error, energy and time of a design are."""

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from accelsim.plot.error import ErrorParts
from accelsim.plot.style import BLUE, GREEN, ORANGE, axes_for, light_frame, short, title
from accelsim.plot.timing import Run
from devices.base.quantity import format_quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LAYERS = 30


class ErrorAndTime(Protocol):
    """What the picture reads of an evaluation."""

    @property
    def error(self) -> ErrorParts: ...
    @property
    def time(self) -> Run: ...

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one record a layer, with `stage`, `mse`, `energy_j` and `work_s`."""
        ...


def plot_evaluation(report: ErrorAndTime, ax: "Axes | None" = None) -> "Axes":
    """Draw each layer's share of the error, the energy and the work of one image."""
    rows = report.to_dicts()[:MOST_LAYERS]
    ax = axes_for(ax, height=max(3.0, 0.42 * len(rows) + 1.4))
    places = np.arange(len(rows))
    for k, (name, label, colour) in enumerate((("mse", "error", ORANGE), ("energy_j", "energy", BLUE), ("work_s", "work", GREEN))):
        values = np.maximum(np.array([float(row[name]) for row in rows]), 0.0)
        total = values.sum()
        ax.barh(places + 0.27 * (k - 1), values / total if total else values, height=0.25, color=colour, label=label)
    ax.set_yticks(places, [short(row["stage"]) for row in rows], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("share of the layers' sum")
    light_frame(ax, grid="x")
    ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    energy = format_quantity(report.time.energy_j, "joule", n_digits=3)
    latency = format_quantity(report.time.latency_s, "second", n_digits=3)
    note = f"{report.error.provenance.network}: relative MSE {report.error.mse_rel:.3g}, {energy} and {latency} an image"
    title(ax, "Where error, energy and time are", note=note)
    return ax
