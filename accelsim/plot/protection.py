"""When a code pays: its energy over that of a bare memory with as many wrong bits left, by law or by code."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from accelsim.plot.style import BLUE, GREEN, GREY, ORANGE, SKY, VERMILION, axes_for, legend_below, light_frame, plain, title
from devices.base.errors import SpecError
from devices.break_even import Protected

if TYPE_CHECKING:
    from matplotlib.axes import Axes

N_RATES = 160
MOST_LEFT_P, LEAST_LEFT_P = 0.1, 1e-12
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, SKY, GREY)
LINES = ("-", "--", "-", "-.", "-", "--")


def plot_protection(contests: Mapping[str, Protected], code: str, ax: "Axes | None" = None) -> "Axes":
    """Draw R over what is left wrong, with the ends of where each code pays by root (dots) and by closed form (crosses)."""
    ax = axes_for(ax)
    drawn = [_draw(ax, name, protected, i % len(COLOURS)) for i, (name, protected) in enumerate(contests.items())]
    if not any(drawn):
        raise SpecError(f"--plot: {code}: no law reaches the same errors with it and without, so there is nothing to draw")
    ax.axhline(1.0, color="0.3", linewidth=1.0, zorder=1)
    low = min(0.95, ax.get_ylim()[0])
    ax.axhspan(low, 1.0, color="0.94", zorder=0, linewidth=0)
    ax.set_ylim(low, None)
    ax.annotate("below 1 the code pays", (0.01, 0.02), xycoords="axes fraction", fontsize=9, color="0.3")
    ax.set_xlabel("error rate of a bit that is left")
    ax.set_ylabel("energy with the code / without")
    light_frame(ax)
    legend_below(ax, columns=2)
    title(ax, f"When a code pays: {code}", note="dots: ends of where it pays; crosses: by the closed form")
    return ax


def _draw(ax: "Axes", name: str, protected: Protected, i: int) -> bool:
    """Draw one contest; return whether there was anything."""
    left = np.geomspace(LEAST_LEFT_P, MOST_LEFT_P, N_RATES)
    ratio = np.array([np.nan if (r := protected.compared(float(p)).ratio) is None else r for p in left])
    ax.semilogx(left, ratio, LINES[i], color=COLOURS[i], linewidth=1.8, label=plain(name), zorder=2)
    ends = [p for span in protected.spans() for p in (span.from_p, span.to_p) if p is not None]
    ax.plot([protected.left_rate(p) for p in ends], [1.0] * len(ends), "o", color=COLOURS[i], markersize=6, zorder=3)
    closed = protected.closed_form() if ends else None
    if closed is not None:
        ax.plot([protected.left_rate(closed)], [1.0], "x", color="black", markersize=6, zorder=4)
    return bool(np.isfinite(ratio).any())
