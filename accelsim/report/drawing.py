"""Pictures of reports of the size that their names need, without pyplot: nothing is shown, and no backend is chosen."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES, HEIGHT_INCHES = 7.0, 4.2
NAME_INCHES, CLOSE_INCHES, FRAME_INCHES, MANY = 0.3, 0.18, 1.7, 20
"""Height of a name beside a bar, of those beyond the first so many, and of title, axis and legend."""


def drawn(plot: "Callable[[Axes], object]") -> "Figure":
    """Return a figure of what `plot` draws on its axes, as high as the names beside it need."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), layout="constrained")
    axes = figure.add_subplot()
    plot(axes)
    if n_names := _n_names(axes):
        names = NAME_INCHES * min(n_names, MANY) + CLOSE_INCHES * max(0, n_names - MANY)
        figure.set_size_inches(WIDTH_INCHES, max(2.8, FRAME_INCHES + names))
    return figure


def _n_names(axes: "Axes") -> int:
    """Return how many names stand beside the axes; 0 where there are numbers."""
    from matplotlib.ticker import FixedLocator

    if not isinstance(axes.yaxis.get_major_locator(), FixedLocator):
        return 0
    names = [label.get_text() for label in axes.get_yticklabels()]
    return len(names) if any(c.isalpha() for name in names for c in name) else 0


def svg_of(figure: "Figure") -> str:
    """Return the figure as SVG: letters as outlines, the same text for the same picture."""
    from matplotlib import rc_context

    out = io.StringIO()
    with rc_context({"svg.fonttype": "path", "svg.hashsalt": "accelsim"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()
