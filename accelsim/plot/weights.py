"""What is stored: the weights of a layer, the conductances they become, and one programming's errors."""

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from accelsim.placement import Plan
from accelsim.plot.style import BLUE, GREEN, ORANGE, axes_for, light_frame, title
from accelsim.sampling.programmings import Programmer
from devices.base.errors import SpecError
from devices.base.quantity import format_quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

N_BINS = 60
Panel: TypeAlias = tuple[NDArray, str, str, str]
"""Values, what they are with unit, title, colour."""


def plot_weights(plan: Plan, layer: str, *, seed: int, axes: "NDArray | None" = None) -> "NDArray":
    """Draw three histograms of one placed layer and return their axes, `(3,)`.

    Counts are on a logarithmic scale. Raises SpecError for a name that no placed layer has.
    """
    names = [placed.name for placed in plan.layers]
    if layer not in names:
        raise SpecError(f"no placed layer {layer!r}; there are {', '.join(names[:20])}")
    placed = plan.layers[names.index(layer)]
    if placed.is_digital:
        raise SpecError(f"layer {layer!r}: its weights are words in a memory, not conductances; choose a layer in a crossbar")
    wanted, got = placed.site.requested(), Programmer(plan, seed=seed).draw(0).cells[layer]
    axes = _three_axes() if axes is None else axes
    error = 1e6 * (_all(got) - _all(wanted))
    used = format_quantity(float(placed.site.g_used_siemens.max()), "siemens", n_digits=4)
    panels: tuple[Panel, ...] = (
        (placed.operator.weights.ravel(), "weight", f"{layer}: {placed.operator.weights.size} weights", BLUE),
        (1e6 * _all(wanted), "conductance asked for (uS)", f"largest weight at {used}", GREEN),
        (error, "stored less asked for (uS)", f"error {_spread(error)}", ORANGE),
    )
    for ax, panel in zip(axes, panels):
        _histogram(ax, panel)
    return axes


def _three_axes() -> "NDArray":
    from matplotlib import pyplot

    return pyplot.subplots(1, 3, figsize=(11.0, 3.6), layout="constrained")[1]


def _all(cells: tuple[NDArray, ...]) -> NDArray:
    return np.concatenate([part.ravel() for part in cells]).astype(np.float64)


def _spread(error_microsiemens: NDArray) -> str:
    return f"{format_quantity(1e-6 * float(np.sqrt(np.mean(error_microsiemens**2))), 'siemens', n_digits=3)} rms"


def _histogram(ax: "Axes", panel: Panel) -> None:
    values, label, heading, color = panel
    axes_for(ax).hist(values, bins=N_BINS, color=color, log=True)
    ax.set_xlabel(label)
    ax.set_ylabel("count")
    light_frame(ax, grid="y")
    title(ax, heading)


def save_weights(plan: Plan, layer: str, *, seed: int, path: Path) -> None:
    """Write the picture of `plot_weights` to a file, and its numbers as CSV beside it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 3.6), layout="constrained")
    axes = plot_weights(plan, layer, seed=seed, axes=figure.subplots(1, 3))
    figure.savefig(path, dpi=150)
    lines = ["panel,from,to,count"]
    for ax in axes:
        lines += [f"{ax.get_xlabel()},{bar.get_x()!r},{bar.get_x() + bar.get_width()!r},{int(bar.get_height())}" for bar in ax.patches]
    path.with_suffix(".csv").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
