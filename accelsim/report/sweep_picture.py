"""From the points of a sweep to the lines, maps and dots of its picture."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from accelsim.report.origin import Provenance
from accelsim.report.sweep_point import LARGER_IS_BETTER, SweepPoint, value_text
from devices.base.errors import SpecError
from devices.base.toml_codec import nearest_text, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Sweep(Protocol):
    """What of a sweep is drawn."""

    @property
    def provenance(self) -> Provenance: ...

    @property
    def run(self) -> str: ...

    @property
    def layout(self) -> str: ...

    @property
    def axes(self) -> Mapping[str, list[Any]]: ...

    @property
    def points(self) -> Sequence[SweepPoint]: ...

    @property
    def done(self) -> Sequence[SweepPoint]: ...

    def column(self, name: str | None) -> str: ...

    def best(self, column: str | None = None) -> SweepPoint: ...


def draw(
    report: Sweep, ax: "Axes | None", *, column: str | None, over: str | tuple[str, ...] | None, at: Mapping[str, Any]
) -> "Axes":
    """Draw a column of a sweep over one axis or two; see SweepReport.plot."""
    name = report.column(column)
    axes = _axes(report, over)
    if report.layout != "grid":
        return _dots(report, ax, name, axes)
    fixed = _fixed(report, axes, at)
    points = [point for point in report.points if all(point.values[path] == value for path, value in fixed.items())]
    heading, note = _words(report, name, fixed)
    x_path, x = axes[0], report.axes[axes[0]]
    if len(axes) == 1:
        from accelsim.plot.sweep import plot_lines

        return plot_lines(x, {name: _row(points, x_path, x, name)}, x_name=x_path, y_name=name, heading=heading, note=note, ax=ax)
    return _over_two(report, ax, name, axes, points, heading, note)


def _over_two(
    report: Sweep, ax: "Axes | None", name: str, axes: tuple[str, ...], points: list[SweepPoint], heading: str, note: str
) -> "Axes":
    from accelsim.plot.sweep import MAX_LINES, plot_lines, plot_map

    (x_path, y_path), (x, y) = axes, (report.axes[path] for path in axes)
    rows = {i: _row([p for p in points if p.values[y_path] == value], x_path, x, name) for i, value in enumerate(y)}
    if len(y) <= MAX_LINES:
        series = {value_text(y_path, y[i]): row for i, row in rows.items()}
        return plot_lines(x, series, x_name=x_path, y_name=name, legend=y_path, heading=heading, note=note, ax=ax)
    grid = np.stack(list(rows.values()))
    return plot_map(x, y, grid, x_name=x_path, y_name=y_path, value_name=name, heading=heading, note=note, ax=ax)


def drawn_axes(report: Sweep) -> tuple[str, ...]:
    """Return the axes that a picture is drawn over when none are asked for."""
    return _axes(report, None)


def _dots(report: Sweep, ax: "Axes | None", name: str, axes: tuple[str, ...]) -> "Axes":
    from accelsim.plot.sweep import plot_dots

    heading, note = _words(report, name, {})
    values = np.array([_number(point, name) for point in report.points])
    x, *rest = ([point.values[path] for point in report.points] for path in axes)
    return plot_dots(
        x, values, y=rest[0] if rest else None, x_name=axes[0], y_name=axes[1] if rest else "", value_name=name, heading=heading,
        note=note, ax=ax,
    )  # fmt: skip


def _axes(report: Sweep, over: str | tuple[str, ...] | None) -> tuple[str, ...]:
    known = tuple(report.axes)
    if over is None:  # axes with one value are no axes of a picture
        moving = [path for path in known if len(report.axes[path]) > 1] or list(known)
        moving.sort(key=lambda path: -len(report.axes[path]))  # the longest across; sorting keeps the order of equals
        return tuple(moving[:2])
    asked = (over,) if isinstance(over, str) else tuple(over)
    for path in asked:
        if path not in known:
            raise SpecError(f"over: {shown(path)}: the sweep has no such axis{nearest_text(str(path), known)}")
    if not 1 <= len(asked) <= 2 or len(set(asked)) < len(asked):
        raise SpecError(f"over: {', '.join(asked)}: need one axis or two different ones")
    return asked


def _fixed(report: Sweep, axes: tuple[str, ...], at: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the axes that are not drawn."""
    others = {path: values for path, values in report.axes.items() if path not in axes}
    for path, value in at.items():
        if path not in others:
            raise SpecError(f"at: {shown(path)}: not an axis beside those drawn{nearest_text(str(path), tuple(others))}")
        if value not in others[path]:
            raise SpecError(f"at: {path}: {shown(value)}: not among its values {', '.join(map(str, others[path][:12]))}")
    return {path: at.get(path, values[0]) for path, values in others.items()}


def _row(points: list[SweepPoint], path: str, values: list[Any], name: str) -> NDArray:
    found = [next((_number(p, name) for p in points if p.values[path] == value), np.nan) for value in values]
    return np.array(found)


def _number(point: SweepPoint, name: str) -> float:
    value = point.record().get(name)
    return float(value) if isinstance(value, int | float) else np.nan


def _words(report: Sweep, name: str, fixed: Mapping[str, Any]) -> tuple[str, str]:
    """Return the heading and the note."""
    best = report.best(name)
    word = "Largest" if name in LARGER_IS_BETTER else "Least"
    heading = f"{word} {name} {value_text(name, best.record()[name])}"
    parts = [f"{report.provenance.network}, {report.run} at {len(report.points)} points"]
    parts += [f"{path} = {value_text(path, value)}" for path, value in fixed.items()]
    n_unknown = len(report.points) - len(report.done)
    return heading, "; ".join(parts + ([f"{n_unknown} failed or missing"] if n_unknown else []))
