"""Accuracy and energy over the epochs of a training."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from accelsim.plot.style import BLUE, GREEN, VERMILION, axes_for, light_frame, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWN = {"accuracy": BLUE, "held_accuracy": GREEN, "energy_rel": VERMILION}


def plot_history(history: Sequence[Mapping[str, float]], *, heading: str, note: str, ax: "Axes | None" = None) -> "Axes":
    """Draw what a training noted after each epoch, as shares of one; what it did not note is left out."""
    ax = axes_for(ax)
    for name, colour in DRAWN.items():
        known = [(row.get("step", i), row[name]) for i, row in enumerate(history) if name in row]
        if known:
            ax.plot(*zip(*known), color=colour, linewidth=1.8, marker="o", markersize=4.0, label=name.replace("_", " "), zorder=3)
    ax.set_xlabel("step")
    ax.set_ylim(0.0, None)
    light_frame(ax)
    if ax.lines:
        ax.legend(frameon=False, fontsize=9, loc="best")
    title(ax, heading, note=note)
    return ax
