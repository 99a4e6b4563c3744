"""The answer of the simulation: latency, interval, energy and power, and what stages did."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from accelsim.report.base import Report, columns_table
from accelsim.report.origin import Provenance
from devices.base.errors import SpecError
from devices.base.quantity import format_quantity, percent
from workloads.operators.base import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """What one stage did in a run.

    Parameters
    ----------
    stage, layer
        The stage, and the node whose work it does (transfers: the one whose results they move).
    copies, arrays, tokens
        Copies of its arrays, arrays of all of them, tokens of one image.
    work_s, fill_s
        Time that one image keeps it busy, and further time until a result is there.
    busy, blocked, starved
        Shares of the run: serving, without room behind it, waiting to begin. They add up to one; None from the bound.
    room_tokens, peak_tokens
        What the buffer behind it holds (None: any number), and the most that was in it.
    operations, moved_bits
        Of one image: operations (two a multiply-add), and bits between its arrays, or a digital engine, and buffers and memories.
    limit
        Of a layer of a digital engine: `multiply`, or the memory that is in its way.
    slack_s, critical_s
        By how much its most urgent token could be late, and how long the critical path is in it; None but from the recurrence.
    """

    stage: str
    layer: str
    copies: int
    arrays: int
    tokens: int
    work_s: float
    fill_s: float
    busy: float
    blocked: float | None
    starved: float | None
    room_tokens: int | None
    peak_tokens: int | None
    operations: int
    moved_bits: int
    slack_s: float | None
    critical_s: float | None
    limit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TimeReport(Report):
    """Time and energy of a plan.

    Parameters
    ----------
    latency_s, latency_quantiles
        From an image's arrival (saturated: its entering) to its result: mean and quantiles over images.
    ii_s, throughput_per_s
        Time between results in the second half of the run, and its inverse; with arrivals, of the whole run.
    energy_j
        Of one inference, leakage over the run included; each `energy_by_...` sums to it, and so does `energy_of_layers` (by component).
    power_w, peak_power_w
        Mean over the run; the sum over all parts while everything works, where the spec gives it.
    utilization
        Mean share of the time that arrays work, at the interval; of multiply-add units, where there are no arrays.
    n_multipliers, multipliers_work
        Multiply-add units of digital engines, and the mean share of the time that they work; None where there are none.
    peak_ops_hz, bus_bits_hz
        Operations a second of all arrays and multiply-add units in use, if they had always something to do; bits a second of the buses of
        tiles.
    lifetime_images
        Images until cells that are written for each image wear out; None where they are not written.
    trace_edges_s, trace_power_w
        Power over the run in equal bins; its integral is the energy of all images.
    bars
        `(n, 3)`: stage, start and end in seconds of at most 2,000 bars; neighbouring tokens are merged.
    """

    kind: ClassVar[str] = "simulate"
    provenance: Provenance
    engine: str
    images: int
    latency_s: float
    latency_quantiles: dict[str, float]
    ii_s: float
    throughput_per_s: float
    makespan_s: float
    energy_j: float
    energy_by_component: dict[str, float]
    energy_by_layer: dict[str, float]
    energy_by_cause: dict[str, float]
    energy_of_layers: dict[str, dict[str, float]]
    power_w: float
    peak_power_w: float
    area_m2: float
    area_by_component: dict[str, float]
    utilization: float
    bottleneck: str
    n_arrays: int
    n_tiles: int
    n_chips: int
    n_rounds: int
    lifetime_images: float | None
    token: int
    n_tokens: int
    n_events: int
    waited_s: dict[str, float]
    stages: tuple[StageTime, ...]
    operations: int
    peak_ops_hz: float
    bus_bits_hz: float | None
    trace_edges_s: Array | None
    trace_power_w: Array | None
    bars: Array | None
    elapsed_s: float
    n_multipliers: int = 0
    multipliers_work: float | None = None

    def numbers(self) -> dict[str, Any]:
        names = (
            "engine", "images", "latency_s", "latency_quantiles", "ii_s", "throughput_per_s", "makespan_s", "energy_j",
            "energy_by_component", "energy_by_layer", "energy_by_cause", "energy_of_layers",
            "power_w", "peak_power_w", "area_m2", "area_by_component",
            "utilization", "bottleneck", "n_arrays", "n_tiles", "n_chips", "n_rounds", "lifetime_images", "token", "n_tokens", "n_events",
            "waited_s", "operations", "peak_ops_hz", "bus_bits_hz", "n_multipliers", "multipliers_work", "elapsed_s",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names} | {"stages": self.to_dicts()}

    def rows(self) -> list[tuple[str, str]]:
        rate = f"{_prefixed(self.operations * self.throughput_per_s)}op/s"
        per_joule = f", {_prefixed(self.operations / self.energy_j)}op/J" if self.energy_j else ""
        where = f"{self.n_arrays} on {self.n_tiles} tile{'' if self.n_tiles == 1 else 's'}"
        where += "" if self.n_chips == 1 else f" of {self.n_chips} chips"
        where += f" in {self.n_rounds} rounds for each image" if self.n_rounds > 1 else ""
        return [
            ("network", f"{self.provenance.network}, {self.images} image{'s' if self.images > 1 else ''}, engine {self.engine}"),
            ("latency", f"{_s(self.latency_s)}{self._spread()}"),
            ("interval", f"{_s(self.ii_s)}, {self.throughput_per_s:.4g} images/s, {rate}{per_joule}"),
            ("energy", f"{format_quantity(self.energy_j, 'joule', n_digits=4)} an image" if self.energy_j else _NOT_KNOWN),
            ("power", f"{format_quantity(self.power_w, 'watt', n_digits=4)} on average" + self._peak()),
            ("area", f"{self.area_m2 * 1e6:.4g} mm2" if self.area_m2 else _NOT_KNOWN),
            *([("arrays", where)] if self.n_arrays else []),
            ("arrays work" if self.n_arrays else "multipliers work", f"{percent(self.utilization, 1)} of the time"),
            *self._engines(),
            ("bottleneck", f"{self.bottleneck}{self._alone()}"),
            *_shares("energy", self.energy_by_component, self.energy_j),
            *self._waits(),
            ("tokens, events", f"{self.n_tokens:,} tokens an image{self._width()}; {self.n_events:,} events; {self.elapsed_s:.2f} s"),
        ]

    def _engines(self) -> list[tuple[str, str]]:
        if not self.n_multipliers or self.multipliers_work is None or not any(row.limit for row in self.stages):
            return []
        slow = [f"{row.limit} in {row.stage}" for row in self.stages if row.limit and row.limit != "multiply"]
        waits = "no memory in the way" if not slow else f"waiting for {', '.join(slow[:3])}" + (", ..." if len(slow) > 3 else "")
        return [("digital engine", f"{self.n_multipliers:,} multiply-add units, {percent(self.multipliers_work, 1)} of the time; {waits}")]

    def _spread(self) -> str:
        if self.images == 1 or self.engine == "bound":
            return " at least" if self.engine == "bound" else ""
        q = self.latency_quantiles
        return f" (median {_s(q['p50'])}, 99 % {_s(q['p99'])})"

    def _width(self) -> str:
        if not self.n_arrays:
            return ""
        return ", as wide as there are copies" if self.token == 1 else f", at least {self.token} pixels wide"

    def _alone(self) -> str:
        """Return what the slowest stage alone takes, where images come more slowly than that."""
        work = next((row.work_s for row in self.stages if row.stage == self.bottleneck), self.ii_s)
        slower = self.n_arrays > 0 and self.ii_s > 1.01 * work
        return "" if not slower else f", which alone takes {_s(work)}: images come more slowly, or wait for each other"

    def _waits(self) -> list[tuple[str, str]]:
        ordered = sorted(self.waited_s.items(), key=lambda item: -item[1])
        rows = [(f"  waited for: {name}", _s(value)) for name, value in ordered[:MOST_WAITS]]
        left = sum(value for _, value in ordered[MOST_WAITS:])
        return [*rows, ("  waited for: others", f"{_s(left)} for {len(ordered) - MOST_WAITS} more")] if left else rows

    def _peak(self) -> str:
        return f", {format_quantity(self.peak_power_w, 'watt', n_digits=4)} with everything working" if self.peak_power_w else ""

    def stage_table(self, *, most: int = 20) -> str:
        """Return a table of the stages that work longest."""
        shown = sorted(self.stages, key=lambda row: -row.work_s)[:most]
        header = ["stage", "copies", "arrays", "work", "busy", "blocked", "starved", "peak / room", "slack"]
        table = [_stage_row(row) for row in shown]
        if any(row.limit for row in self.stages):
            header, table = [*header, "limit"], [[*cells, row.limit or "-"] for cells, row in zip(table, shown)]
        return columns_table(header, table)

    def __str__(self) -> str:
        from accelsim.report.base import text_table

        return f"{text_table(self.rows())}\n\n{self.stage_table()}"

    __repr__ = __str__

    def to_dicts(self) -> list[dict[str, Any]]:
        return [asdict(row) for row in self.stages]

    def arrays(self) -> dict[str, np.ndarray]:
        return {}  # they are fields, and kept as such

    def pictures(self) -> tuple[str, ...]:
        """Return what `plot` can draw beside its first picture: all that this engine knows."""
        known = {"gantt": self.bars is not None, "power": self.trace_power_w is not None, "energy": bool(self.energy_j)}
        known |= {"layers": bool(self.energy_j), "roofline": any(row.operations and row.moved_bits and row.work_s for row in self.stages)}
        return tuple(name for name, is_known in known.items() if is_known)

    def plot(self, ax: "Axes | None" = None, *, what: str = "stages") -> "Axes":
        """Draw `stages` (busy, blocked, starved), `gantt`, `power`, `energy` (by component), `layers` (energy by layer) or `roofline`."""
        from accelsim.plot import timing

        drawings = {"stages": timing.plot_stages, "gantt": timing.plot_gantt, "power": timing.plot_power}
        drawings |= {"energy": timing.plot_energy, "layers": timing.plot_layers, "roofline": timing.plot_roofline}
        if what not in drawings:
            raise SpecError(f"what: {what!r}: need {' | '.join(drawings)}")
        return drawings[what](self, ax)


MOST_PARTS, MOST_WAITS = 12, 4
_NOT_KNOWN = "- (no part of the chip has any)"


def _s(seconds: float) -> str:
    return format_quantity(seconds, "second", n_digits=4)


def _prefixed(value: float) -> str:
    """Return a number with the prefix of its unit, as `3.77 G`."""
    for prefix, least in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= least:
            return f"{value / least:.4g} {prefix}"
    return f"{value:.4g} "


def _shares(what: str, parts: dict[str, float], total: float) -> list[tuple[str, str]]:
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    shown = ((name, format_quantity(value, "joule", n_digits=4), percent(value / total, 1)) for name, value in ordered[:MOST_PARTS])
    return [(f"  {what}: {name}", f"{value}  ({share})") for name, value, share in shown]


def _stage_row(row: StageTime) -> list[str]:
    room = "any" if row.room_tokens is None else str(row.room_tokens)
    peak = "-" if row.peak_tokens is None else str(row.peak_tokens)
    shares = [percent(value, 1) for value in (row.busy, row.blocked, row.starved)]
    slack = "-" if row.slack_s is None else _s(row.slack_s)
    return [row.stage, str(row.copies), str(row.arrays), _s(row.work_s), *shares, f"{peak} / {room}", slack]
