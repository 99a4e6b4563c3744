"""A number over one or two axes of a sweep: lines, a map, or dots where the points are no grid."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from accelsim.plot.style import BLUE, GREEN, GREY, ORANGE, SKY, VERMILION, axes_for, light_frame, plain, positive, scale_for, short, title
from devices.base.quantity import UNITS, unit_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

MAX_LINES = 6
"""More values of a second axis become a map."""
COLOURS = (BLUE, ORANGE, GREEN, VERMILION, SKY, GREY)
MAP = "viridis"


def plot_lines(
    x: Sequence[Any], series: Mapping[str, NDArray], *, x_name: str, y_name: str, legend: str = "", heading: str, note: str,
    ax: "Axes | None" = None,
) -> "Axes":  # fmt: skip
    """Draw one line for each of `series` over `x`; values that are no numbers stand side by side."""
    ax = axes_for(ax)
    places = _places(x)
    for colour, (name, values) in zip(COLOURS, series.items()):
        ax.plot(places, values, color=colour, linewidth=1.8, marker="o", markersize=4.5, label=plain(name), zorder=3)
    _name_axis(ax.xaxis, x, x_name)
    name_value_axis(ax.yaxis, np.concatenate([np.asarray(v, dtype=float) for v in series.values()]), y_name)
    light_frame(ax)
    if legend:
        ax.legend(title=plain(legend), frameon=False, fontsize=9, title_fontsize=9, loc="best")
    title(ax, heading, note=note)
    return ax


def plot_map(
    x: Sequence[Any], y: Sequence[Any], values: NDArray, *, x_name: str, y_name: str, value_name: str, heading: str, note: str,
    ax: "Axes | None" = None,
) -> "Axes":  # fmt: skip
    """Draw `values` `(len(y), len(x))` as colours; what is not known stays white."""
    ax = axes_for(ax)
    masked = np.ma.masked_invalid(np.asarray(values, dtype=float))
    drawn = ax.pcolormesh(_edges(x), _edges(y), masked, cmap=MAP, norm=_norm(masked.compressed()), rasterized=True)
    _name_axis(ax.xaxis, x, x_name)
    _name_axis(ax.yaxis, y, y_name)
    ax.spines[["top", "right"]].set_visible(False)
    _colour_bar(ax, drawn, value_name)
    title(ax, heading, note=note)
    return ax


def plot_dots(
    x: Sequence[Any], values: NDArray, *, x_name: str, value_name: str, heading: str, note: str, y: Sequence[Any] | None = None,
    y_name: str = "", ax: "Axes | None" = None,
) -> "Axes":  # fmt: skip
    """Draw points as dots: `values` over `x`, or as colours over `x` and `y`."""
    ax = axes_for(ax)
    known = np.isfinite(values)
    if y is None:
        ax.plot(_places(x)[known], values[known], "o", color=BLUE, markersize=5, alpha=0.8, zorder=3)
        name_value_axis(ax.yaxis, values, value_name)
    else:
        ax.plot(_places(x)[~known], _places(y)[~known], "x", color=GREY, markersize=5, zorder=2)
        drawn = ax.scatter(_places(x)[known], _places(y)[known], c=values[known], cmap=MAP, norm=_norm(values[known]), s=36, zorder=3)
        _name_axis(ax.yaxis, y, y_name)
        _colour_bar(ax, drawn, value_name)
    _name_axis(ax.xaxis, x, x_name)
    light_frame(ax)
    title(ax, heading, note=note)
    return ax


def _colour_bar(ax: "Axes", drawn: Any, name: str) -> None:
    bar = ax.figure.colorbar(drawn, ax=ax)
    bar.set_label(short(name))
    _format(bar.ax.yaxis, name)
    bar.outline.set_visible(False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _places(values: Sequence[Any]) -> NDArray:
    """Return where values stand on an axis: at themselves, or side by side in the order they are met."""
    if all(map(_is_number, values)):
        return np.asarray(values, dtype=float)
    names = list(dict.fromkeys(map(str, values)))
    return np.array([names.index(str(value)) for value in values], dtype=float)


def _edges(values: Sequence[Any]) -> NDArray:
    """Return the borders of the cells around values, half-way between neighbours on the axis's scale."""
    centres = _places(values)
    is_log = _scale(values) == "log"
    centres = np.log(centres) if is_log else centres
    if len(centres) == 1:
        edges = np.array([centres[0] - 0.5, centres[0] + 0.5])
    else:
        middle = (centres[1:] + centres[:-1]) / 2.0
        edges = np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])
    return np.exp(edges) if is_log else edges


def _scale(values: Sequence[Any]) -> str:
    if not all(map(_is_number, values)):
        return "linear"
    numbers = np.asarray(values, dtype=float)
    return scale_for(numbers) if bool(positive(numbers).all()) and len(set(values)) > 1 else "linear"


def _name_axis(axis: "Axis", values: Sequence[Any], name: str) -> None:
    axis.set_label_text(short(name))
    if not all(map(_is_number, values)):
        names = list(dict.fromkeys(map(str, values)))
        axis.set_ticks(list(range(len(names))), labels=[short(text) for text in names])
        return
    if _scale(values) == "log":
        axis._set_axes_scale("log")  # type: ignore[attr-defined]  # what set_xscale and set_yscale call
    _format(axis, name)


def name_value_axis(axis: "Axis", values: NDArray, name: str) -> None:
    """Name an axis of numbers, logarithmic where they differ much, with the unit that the name declares."""
    finite = values[np.isfinite(values)]
    if len(finite) and bool((finite > 0.0).all()) and scale_for(finite) == "log":
        axis._set_axes_scale("log")  # type: ignore[attr-defined]  # what set_xscale and set_yscale call
    axis.set_label_text(short(name))
    _format(axis, name)


def _format(axis: "Axis", name: str) -> None:
    """Write ticks with the unit that a name declares."""
    from matplotlib.ticker import EngFormatter

    symbol = "" if name.endswith("_per_s") else UNITS[unit_of(name.rpartition(".")[2])].symbol
    if symbol and symbol != "m2":
        axis.set_major_formatter(EngFormatter(unit=symbol))


def _norm(values: NDArray) -> Any:
    from matplotlib.colors import LogNorm, Normalize

    if len(values) and bool((values > 0.0).all()) and scale_for(values) == "log":
        return LogNorm(values.min(), values.max())
    return Normalize(values.min() if len(values) else 0.0, values.max() if len(values) else 1.0)
