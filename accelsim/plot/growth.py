"""How an error grows through a network."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from accelsim.plot.style import BLUE, ORANGE, axes_for, light_frame, positive, short, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Grown(Protocol):
    """What the picture reads of a layer."""

    @property
    def layer(self) -> str: ...
    @property
    def mse_rel(self) -> float: ...
    @property
    def own_rel(self) -> float: ...


def plot_growth(layers: Sequence[Grown], *, network: str, note: str = "", ax: "Axes | None" = None) -> "Axes":
    """Draw the relative error of each layer's output, and what the layer makes of it itself, on a logarithmic axis."""
    ax = axes_for(ax, height=max(2.8, 1.7 + 0.3 * len(layers)))
    places = np.arange(len(layers))
    for values, offset, colour, label in (
        ([row.mse_rel for row in layers], -0.2, BLUE, "with the errors of the layers before"),
        ([row.own_rel for row in layers], 0.2, ORANGE, "its own, inputs exact"),
    ):
        shown = np.asarray(values, dtype=float)
        ax.barh(places + offset, np.where(positive(shown), shown, 0.0), height=0.38, color=colour, label=label)
    every = np.array([value for row in layers for value in (row.mse_rel, row.own_rel)])
    if positive(every).any():
        ax.set_xscale("log")
        ax.set_xlim(left=0.3 * float(every[positive(every)].min()))
    ax.set_yticks(places, [short(row.layer) for row in layers])
    ax.invert_yaxis()
    ax.set_xlabel("squared error over the variance of the layer's output")
    light_frame(ax, grid="x")
    ax.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.95 / max(2.8, 1.7 + 0.3 * len(layers))), ncols=2)
    title(ax, f"{network}: how the error grows", note=note)
    return ax
