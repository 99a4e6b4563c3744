"""What a cell does to what is asked of it: the spread of stored values over the range, now and after a time."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from accelsim.accelerator import Cell
from accelsim.plot.style import BLUE, ORANGE, VERMILION, axes_for, light_frame, title
from devices.law import CellChain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

N_STATES = 300
LATER_S = 86_400.0


def plot_cell(cell: Cell, name: str, ax: "Axes | None" = None) -> "Axes":
    """Draw the standard deviation of what is stored over the target, and how far its mean is off; after a day too where cells drift."""
    ax = axes_for(ax)
    states = np.linspace(max(cell.g_min_siemens, 1e-3 * cell.g_max_siemens), cell.g_max_siemens, N_STATES)
    laws = tuple(law for law in (cell.device_to_device, cell.programming, cell.low_frequency_noise) if law is not None)
    if laws or cell.drift is None:
        _draw(ax, CellChain(laws), states, cell, label="stored", color=BLUE)
    if cell.drift is not None:
        aged = replace(cell.drift, t_s=LATER_S)  # type: ignore[type-var]
        _draw(ax, CellChain((*laws, aged)), states, cell, label="after a day", color=VERMILION)
    if cell.read_noise is not None:
        read = np.sqrt(cell.read_noise.variance_siemens2(states, cell.g_max_siemens))
        ax.plot(1e6 * states, 1e6 * read, color=ORANGE, linewidth=1.8, label="one read")
    ax.axhline(0.0, color="0.8", linewidth=0.8, zorder=0)
    ax.set_xlabel("target conductance (uS)")
    ax.set_ylabel("error (uS)")
    light_frame(ax)
    ax.legend(frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3)  # above: curves may be anywhere
    title(ax, f"Cell of {name}", note="solid: standard deviation; dashed: mean less target")
    return ax


def _draw(ax: "Axes", chain: CellChain, states: np.ndarray, cell: Cell, *, label: str, color: str) -> None:
    moments = chain.moments(states, cell.g_max_siemens)
    ax.plot(1e6 * states, 1e6 * np.sqrt(moments.variance_siemens2), color=color, linewidth=1.8, label=label)
    ax.plot(1e6 * states, 1e6 * (moments.mean_siemens - states), color=color, linewidth=1.2, linestyle="--")
