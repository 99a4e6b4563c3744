"""What a sweep varies: the values of fields of a spec, in a grid, a list, at random or in a Sobol sequence.

A path of an axis is that of `--set`; `run.NAME` stands for an option of what is run. Numbers end up in SI, so that answers can be
drawn over them. Random and Sobol designs are prefixes of one sequence: a longer one holds the shorter one's points.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from accelsim.accelerator import Accelerator
from devices.base.errors import SpecError
from devices.base.quantity import parse_quantity, unit_of
from devices.base.toml_codec import Entry, converted, nearest_text, shown, string_text

Values: TypeAlias = dict[str, Any]
"""A point: the value of each axis, by the axis's path."""
Layout: TypeAlias = Literal["grid", "random", "sobol"]
MAX_POINTS = 100_000
OF_RUN = "run."


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A range of values.

    Parameters
    ----------
    low, high
        Its ends, both in it: numbers in SI, or quantities such as "5 uS".
    scale
        Whether steps are equal in the value (`linear`) or in its logarithm (`log`).
    n
        Values in a grid; random and Sobol designs and `explore` take any.
    """

    low: float | str
    high: float | str
    scale: Literal["linear", "log"] = "linear"
    n: int | None = None

    def __post_init__(self) -> None:
        if self.scale not in ("linear", "log"):
            raise SpecError(f"scale: {shown(self.scale)}: need linear | log")
        if self.n is not None and (not isinstance(self.n, int) or isinstance(self.n, bool) or not 2 <= self.n <= MAX_POINTS):
            raise SpecError(f"n: {shown(self.n)}: need a whole number from 2 to {MAX_POINTS}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One field that varies: over listed values, or over a range (`low` to `high`, `n` of them in a grid)."""

    path: str
    full_path: str
    values: tuple[Any, ...] = ()
    low: float = math.nan
    high: float = math.nan
    scale: str = "linear"
    n: int | None = None
    is_int: bool = False

    def grid(self) -> tuple[Any, ...]:
        """Return the values of a grid; SpecError for a range that does not say how many."""
        if self.values:
            return self.values
        if self.n is None:
            raise SpecError(f"axes: {self.path}: a grid needs to know how many values the range has: give n, or list them")
        space = np.geomspace if self.scale == "log" else np.linspace
        values = [float(v) for v in space(self.low, self.high, self.n)]
        return tuple(dict.fromkeys(round(v) for v in values)) if self.is_int else tuple(values)

    def at(self, share: float) -> Any:
        """Return the value at a share in [0, 1) of the way."""
        if self.values:
            return self.values[int(share * len(self.values))]
        if self.is_int:
            return int(self.low) + min(int(share * (self.high - self.low + 1)), int(self.high - self.low))
        if self.scale == "log":
            return float(self.low * (self.high / self.low) ** share)
        return float(self.low + share * (self.high - self.low))

    def shown_values(self) -> list[Any]:
        """Return what a record says of the axis: its values, or the ends of its range."""
        return list(self.values) if self.values else [self.low, self.high]


def axes_of(axes: Mapping[str, Any], accelerator: Accelerator, *, options: Sequence[str]) -> tuple[Axis, ...]:
    """Return checked axes; SpecError names the path, the value and what is near.

    `options` are the names that `run.NAME` may have.
    """
    if not isinstance(axes, Mapping) or not axes:
        raise SpecError('axes: need a path and values, e.g. axes={"cell.programming.error_rel": [0.01, 0.02]}')
    made = tuple(_axis(path, given, accelerator, options) for path, given in axes.items())
    seen: dict[str, str] = {}
    for axis in made:
        if axis.full_path in seen:
            raise SpecError(f"axes: {seen[axis.full_path]} and {axis.path} are the same field; leave one out")
        seen[axis.full_path] = axis.path
    return made


def _axis(path: str, given: Any, accelerator: Accelerator, options: Sequence[str]) -> Axis:
    full, entry = located(path, accelerator, options=options)
    span = span_of(path, given)
    if span is not None:
        return _span_axis(path, full, entry, span)
    if isinstance(given, str | bytes) or not isinstance(given, Sequence | np.ndarray) or not len(given):
        raise SpecError(f"axes: {path}: {shown(given)}: need a list of values, or a range {{low, high}}")
    values = [value_of(path, v, entry) for v in given]
    return Axis(path=path, full_path=full, values=tuple(v for i, v in enumerate(values) if v not in values[:i]))


def located(path: str, accelerator: Accelerator, *, options: Sequence[str]) -> tuple[str, Entry | None]:
    """Return the full path of an axis and its field; an option of the run has none."""
    if not isinstance(path, str):
        raise SpecError(f"axes: {shown(path)}: need the path of a field, as in --set")
    if path.startswith(OF_RUN):
        name = path.removeprefix(OF_RUN)
        if name not in options:
            raise SpecError(f"axes: {path}: the run has no such option{nearest_text(name, tuple(options))}")
        return path, None
    try:
        return accelerator.located(path)
    except SpecError as error:
        raise SpecError(f"axes: {str(error).removeprefix('--set ')}") from None


def span_of(path: str, given: Any) -> Span | None:
    """Return the range that an axis was given, as a Span or as a table of its fields; None for other things."""
    if isinstance(given, Span):
        return given
    if not isinstance(given, Mapping):
        return None
    known = ("low", "high", "scale", "n")
    for name in given:
        if name not in known:
            raise SpecError(f"axes: {path}.{name}: unknown key{nearest_text(str(name), known)}")
    if "low" not in given or "high" not in given:
        raise SpecError(f"axes: {path}: a range needs low and high")
    try:
        return Span(**given)
    except SpecError as error:
        raise SpecError(f"axes: {path}: {error}") from None


def _span_axis(path: str, full: str, entry: Entry | None, span: Span) -> Axis:
    if entry is not None and entry.shape not in ("float", "int"):
        raise SpecError(f"axes: {path}: not a number, so it has no range; list its values")
    is_int = entry is not None and entry.shape == "int"
    low, high = (value_of(path, end, entry) for end in (span.low, span.high))
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high)):
        raise SpecError(f"axes: {path}: {shown(low)} to {shown(high)}: need two numbers")
    if not low < high or (span.scale == "log" and low <= 0.0):
        rule = "0 < low < high" if span.scale == "log" else "low < high"
        raise SpecError(f"axes: {path}: need {rule}, got {low:g} and {high:g}")
    return Axis(path=path, full_path=full, low=float(low), high=float(high), scale=span.scale, n=span.n, is_int=is_int)


def value_of(path: str, value: Any, entry: Entry | None) -> Any:
    """Return a value as plain data, numbers in SI; SpecError where its field cannot hold it."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or (value == "none" and (entry is None or entry.optional)):
        return None
    try:
        if entry is None:
            return _plain(path, value)
        if entry.shape in ("record", "family", "named"):
            return value
        made = converted(entry, list(value) if isinstance(value, tuple) else value)
        return list(made) if isinstance(made, tuple) else made
    except SpecError as error:
        raise SpecError(f"axes: {path}: {shown(value)}: {error}") from None


def _plain(path: str, value: Any) -> Any:
    """Return an option or a kind as it is, quantities with a unit that the name declares in SI."""
    unit = unit_of(path.rpartition(".")[2])
    if isinstance(value, str) and path.startswith(OF_RUN) and unit != "number":
        return parse_quantity(value, unit)
    if isinstance(value, list | tuple):
        return [_plain("", v) for v in value]
    if isinstance(value, bool | int | float | str | dict):
        return value
    raise SpecError("need a number, a text, true or false, or a list or table of these")


def assignment(path: str, value: Any) -> str:
    """Return what `with_set` takes to give a field a value."""
    return f"{path}={_toml(value)}"


def _toml(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return string_text(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{string_text(str(k))} = {_toml(v)}" for k, v in value.items()) + " }"
    return repr(value)


# which points there are


def laid_out(axes: tuple[Axis, ...], *, layout: Layout, n_points: int | None, seed: int) -> Iterator[Values]:
    """Yield the points of a design; the last axis of a grid varies first."""
    if layout not in get_args(Layout):
        raise SpecError(f"design: {shown(layout)}: need {' | '.join(get_args(Layout))}, or points=[...]")
    if layout == "grid":
        if n_points is not None:
            raise SpecError(f"n_points: {n_points}: a grid has as many points as its axes make; leave it out, or take another design")
        yield from _grid(axes)
        return
    if n_points is None or not 1 <= n_points <= MAX_POINTS:
        raise SpecError(f"n_points: {shown(n_points)}: a {layout} design needs a number of points from 1 to {MAX_POINTS}")
    for row in _shares(layout, n_points, len(axes), seed):
        yield {axis.path: axis.at(float(share)) for axis, share in zip(axes, row)}


def _grid(axes: tuple[Axis, ...]) -> Iterator[Values]:
    values = [axis.grid() for axis in axes]
    n = math.prod(map(len, values))
    if n > MAX_POINTS:
        sizes = " x ".join(str(len(v)) for v in values)
        raise SpecError(f"axes: {sizes} = {n} points; need at most {MAX_POINTS}; take fewer values, or design = sobol with n_points")
    for row in product(*values):
        yield {axis.path: value for axis, value in zip(axes, row)}


def _shares(layout: Layout, n_points: int, n_axes: int, seed: int) -> np.ndarray:
    """Return points of the unit cube, `(n_points, n_axes)`."""
    if layout == "random":
        return np.random.default_rng([seed, 0x5EED]).random((n_points, n_axes))
    from scipy.stats import qmc  # slow to import

    whole = 1 << max(0, n_points - 1).bit_length()  # drawn whole, since SciPy warns of other lengths
    return np.asarray(qmc.Sobol(n_axes, scramble=True, rng=np.random.default_rng([seed, 0x50B01])).random(whole)[:n_points])


def listed(points: Sequence[Mapping[str, Any]], accelerator: Accelerator, *, options: Sequence[str]) -> list[Values]:
    """Return checked points of a list; each must give the same fields values."""
    if not isinstance(points, Sequence) or not points or not all(isinstance(p, Mapping) and p for p in points):
        raise SpecError('points: need a list of tables, e.g. [{"cell.programming.error_rel": 0.01}, ...]')
    if len(points) > MAX_POINTS:
        raise SpecError(f"points: {len(points)}; need at most {MAX_POINTS}")
    paths = list(points[0])
    fields = {path: located(path, accelerator, options=options)[1] for path in paths}
    for i, point in enumerate(points):
        if set(point) != set(paths):
            odd = ", ".join(sorted(set(point) ^ set(paths)))
            raise SpecError(f"points: point {i} and point 0 do not give the same fields: {odd}; give every point all of them")
    return [_listed_point(i, point, paths, fields) for i, point in enumerate(points)]


def _listed_point(i: int, point: Mapping[str, Any], paths: Sequence[str], fields: Mapping[str, Entry | None]) -> Values:
    try:
        return {path: value_of(path, point[path], fields[path]) for path in paths}
    except SpecError as error:
        raise SpecError(f"points[{i}]: {str(error).removeprefix('axes: ')}") from None
