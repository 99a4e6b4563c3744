"""The answer of a sweep: what each point gave, as tables and pictures."""

import html
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from accelsim.report.base import Report, columns_table, text_table
from accelsim.report.origin import Provenance
from accelsim.report.sweep_point import LARGER_IS_BETTER, SweepPoint, axis_text, coordinate, flat_items, value_text
from devices.base.errors import SpecError
from devices.base.toml_codec import nearest_text

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

    from accelsim.accelerator import Accelerator

MAIN: Mapping[str, tuple[str, ...]] = {
    "predict": ("mse_rel", "accuracy_predicted", "read_power_w", "rel_error_estimate", "valid"),
    "monte_carlo": ("mse_rel", "accuracy", "read_power_w", "n_trials"),
    "simulate": ("latency_s", "throughput_per_s", "energy_j", "power_w", "area_m2"),
    "evaluate": ("mse_rel", "accuracy_predicted", "latency_s", "energy_j", "area_m2"),
    "optimize": ("mse", "read_power_w", "saving_total_rel", "feasible"),
}
"""What a table of points shows of each run's answer; pictures show the first."""
HOW_FOUND = ("rel_error_estimate", "n_trials", "valid", "feasible")
"""Columns of it that say how an answer was found, not how good it is."""
MAX_SHOWN = 24
MAX_CAUSES = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SweepReport(Report):
    """What a sweep found.

    Parameters
    ----------
    run
        What was computed at each point: predict, monte_carlo, simulate, evaluate, optimize, or the name of a function.
    axes
        By path: the values of a grid or list, or the ends of a range.
    layout
        grid, random, sobol, or list.
    points
        In the order of the design, whatever order they were computed in.
    n_computed, n_reused
        How many points were computed now, and how many had been before.
    stopped_by
        `end`, or `interrupt`: what was not reached is `missing`, and the same sweep goes on there.
    """

    kind: ClassVar[str] = "sweep"
    provenance: Provenance
    run: str
    options: dict[str, Any]
    axes: dict[str, Any]
    layout: str
    points: tuple[SweepPoint, ...]
    n_computed: int
    n_reused: int
    stopped_by: Literal["end", "interrupt"]
    elapsed_s: float

    @property
    def done(self) -> tuple[SweepPoint, ...]:
        """The points that have answers."""
        return tuple(point for point in self.points if point.status == "done")

    @property
    def failed(self) -> tuple[SweepPoint, ...]:
        """The points that failed, each with its error."""
        return tuple(point for point in self.points if point.status == "failed")

    @property
    def missing(self) -> tuple[SweepPoint, ...]:
        """The points that are not computed yet."""
        return tuple(point for point in self.points if point.status == "missing")

    @property
    def counts(self) -> str:
        """How many points were computed, reused, failed and are missing, in words."""
        parts = [f"{self.n_computed} computed", f"{self.n_reused} reused"]
        parts += [f"{len(these)} {word}" for these, word in ((self.failed, "failed"), (self.missing, "missing")) if these]
        return ", ".join(parts)

    def best(self, name: str | None = None, *, largest: bool | None = None) -> SweepPoint:
        """Return the point with the least value of a column, or the largest (by default of accuracies and throughputs)."""
        name = self.column(name)
        largest = name in LARGER_IS_BETTER if largest is None else largest
        found = [(value, i) for i, point in enumerate(self.points) if (value := _number(point.record().get(name))) is not None]
        if not found:
            raise SpecError(f"best: no point has a number {name!r}")
        return self.points[(max if largest else min)(found)[1]]

    def accelerator(self, point: SweepPoint) -> "Accelerator":
        """Return the accelerator of a point, to look closer: `place(network, report.accelerator(report.best()), ...)`."""
        from accelsim.accelerator import Accelerator
        from accelsim.sweeping.axes import OF_RUN, assignment

        settings = [assignment(path, value) for path, value in point.values.items() if not path.startswith(OF_RUN)]
        return Accelerator.from_text(self.provenance.spec_toml, origin="the sweep's spec", set=settings)

    def column(self, name: str | None = None) -> str:
        """Return a column's name; by default what the run is about first. SpecError names the nearest."""
        columns = self.columns()
        if name is None:
            name = next((n for n in (*MAIN.get(self.run, ()), *columns) if n in columns), "")
            if not name:
                raise SpecError("no point of the sweep has an answer with a number in it")
        if name not in columns:
            raise SpecError(f"column {name!r}: no answer has it as a number{nearest_text(name, tuple(columns))}")
        return name

    def figures(self) -> tuple[str, ...]:
        """Return the columns that the run is about: those of its table that are numbers and say how good a point is."""
        columns = self.columns()
        named = [name for name in MAIN.get(self.run, ()) if name in columns]
        return tuple(name for name in named or columns[:4] if name not in HOW_FOUND)

    def columns(self) -> list[str]:
        """Return the names of the numbers in the answers."""
        names: dict[str, None] = {}
        for point in self.done:
            names |= {name: None for name, value in flat_items(point.answer) if _number(value) is not None}
        return list(names)

    def numbers(self) -> dict[str, Any]:
        return {
            "run": self.run, "options": self.options, "axes": self.axes, "layout": self.layout, "n_points": len(self.points),
            "n_computed": self.n_computed, "n_reused": self.n_reused, "n_failed": len(self.failed), "n_missing": len(self.missing),
            "stopped_by": self.stopped_by, "elapsed_s": self.elapsed_s,
            "points": [
                {"key": p.key, "values": p.values, "status": p.status, "error": p.error or None, "answer": p.answer} for p in self.points
            ],
        }  # fmt: skip

    def rows(self) -> list[tuple[str, str]]:
        size = " x ".join(str(len(v)) for v in self.axes.values()) if self.layout == "grid" else str(len(self.points))
        rows = [
            ("network", self.provenance.network),
            ("sweep", f"{self.run} at {len(self.points)} points ({self.layout}{f' of {size}' if self.layout == 'grid' else ''})"),
            *(("axis", f"{path}: {_axis_text(path, values, self.layout)}") for path, values in self.axes.items()),
            *((("options", ", ".join(f"{name} = {value}" for name, value in self.options.items())),) if self.options else ()),
            ("points", f"{self.counts}, {self.elapsed_s:.1f} s" + ("; INTERRUPTED" if self.stopped_by == "interrupt" else "")),
        ]
        if self.done and self.columns():
            name = self.column()
            best = self.best(name)
            at = ", ".join(f"{path} = {axis_text(path, value)}" for path, value in best.values.items())
            word = "largest" if name in LARGER_IS_BETTER else "least"
            rows.append((f"{word} {name}", f"{value_text(name, best.record()[name])} at {at}"))
        causes = Counter(first_line(point.error) for point in self.failed)
        return rows + [(f"failed, {n}", cause) for cause, n in causes.most_common(MAX_CAUSES)]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one flat record a point: axes, status, and every number of its answer by its dotted name."""
        return [point.record() for point in self.points]

    def arrays(self) -> dict[str, np.ndarray]:
        return {}

    def to_xarray(self) -> "xarray.Dataset":
        """Return the numbers as a Dataset, over the axes of a grid, over `point` otherwise; needs the extra `frames`."""
        try:
            import xarray
        except ImportError as error:
            raise ImportError("to_xarray() needs xarray: pip install 'accelsim[frames]'") from error
        records = self.to_dicts()
        columns = {name: np.array([np.nan if (v := _number(r.get(name))) is None else v for r in records]) for name in self.columns()}
        about = {"run": self.run, "network": self.provenance.network, "seed": self.provenance.seed, "version": self.provenance.version}
        if self.layout != "grid" or len(self.points) != int(np.prod([len(v) for v in self.axes.values()])):  # a shard has some only
            at = {path: ("point", coordinate([p.values[path] for p in self.points])) for path in self.axes}
            return xarray.Dataset({name: ("point", column) for name, column in columns.items()}, coords=at, attrs=about)
        shape = tuple(len(values) for values in self.axes.values())
        coords = {path: coordinate(values) for path, values in self.axes.items()}
        return xarray.Dataset({n: (tuple(self.axes), c.reshape(shape)) for n, c in columns.items()}, coords=coords, attrs=about)

    def to_csv(self, path: str | Path) -> Path:
        """Write `to_dicts` as a CSV file and return its path."""
        from accelsim.report.files import csv_text, write_whole

        return write_whole(Path(path), csv_text(self.to_dicts()).encode())

    def to_parquet(self, path: str | Path) -> Path:
        """Write `to_dicts` as a Parquet file and return its path; needs the extra `frames`. Columns of mixed kinds become text."""
        import io

        from accelsim.report.files import write_whole

        frame = self.to_pandas()
        for name in frame.columns:
            if len({type(v) for v in frame[name] if v is not None and v == v}) > 1:
                frame[name] = frame[name].map(lambda v: None if v is None or v != v else str(v))
        out = io.BytesIO()
        try:
            frame.to_parquet(out)
        except ImportError as error:
            raise ImportError("to_parquet() needs pyarrow: pip install 'accelsim[frames]'") from error
        return write_whole(Path(path), out.getvalue())

    def plot(
        self, ax: "Axes | None" = None, *, column: str | None = None, over: str | tuple[str, str] | None = None,
        at: Mapping[str, Any] | None = None,
    ) -> "Axes":  # fmt: skip
        """Draw a column over one axis or two.

        Over one axis it is a line, over two lines of colour or, where the second has many values, a map; random and Sobol
        designs are dots. `at` gives the other axes values of a grid, by default their first.
        """
        from accelsim.report.sweep_picture import draw

        return draw(self, ax, column=column, over=over, at=at or {})

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and rows of the table of points, the first MAX_SHOWN of them."""
        columns = self.columns()
        shown = [name for name in MAIN.get(self.run, ()) if name in columns] or columns[:4]
        header = [*self.axes, *shown, "status"]
        rows = []
        for point in self.points[:MAX_SHOWN]:
            record = point.record()
            at = [axis_text(path, point.values[path]) for path in self.axes]
            rows.append([*at, *(value_text(name, record.get(name)) for name in shown), point.status])
        return header, rows

    def __str__(self) -> str:
        header, rows = self.table()
        n_more = len(self.points) - len(rows)
        more = f"\n... and {n_more} more points: to_dicts(), to_pandas(), to_csv()" if n_more else ""
        return f"{text_table(self.rows())}\n\n{columns_table(header, rows)}{more}"

    def _repr_html_(self) -> str:
        header, rows = self.table()
        head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
        body = "".join("<tr>" + "".join(f"<td style='text-align:right'>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
        more = f"<p>and {len(self.points) - len(rows)} more points</p>" if len(self.points) > len(rows) else ""
        return f"{Report._repr_html_(self)}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"

    __repr__ = __str__


def first_line(text: str) -> str:
    """Return the first line of an error that says something: not the head of a list of faults."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    return lines[1] if lines[0].endswith(":") and len(lines) > 1 else lines[0]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _axis_text(path: str, values: list[Any], layout: str) -> str:
    if layout in ("grid", "list") and len(values) <= 8:
        return ", ".join(axis_text(path, value) for value in values)
    if layout in ("grid", "list"):
        return f"{axis_text(path, values[0])} to {axis_text(path, values[-1])}, {len(values)} values"
    return " to ".join(axis_text(path, value) for value in values) if len(values) == 2 else ", ".join(axis_text(path, v) for v in values)
