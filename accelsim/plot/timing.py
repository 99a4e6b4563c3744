"""Pictures of a run in time: what stages did, when, with what power, and where the energy went."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from accelsim.plot.style import BLUE, GREEN, GREY, ORANGE, SKY, VERMILION, Source, axes_for, legend_below, light_frame, short, title
from devices.base.errors import SpecError
from devices.base.quantity import format_quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_STAGES, MOST_LAYERS, MOST_COLOURS = 40, 24, 7
LEAST_SHARE = 1e-3
"""Layers that take less of the energy are not drawn."""
LEAST_BAR = 1.5e-3
"""Width that a bar is drawn with at least, as a share of the run: narrower ones would vanish between pixels."""
_TIMES = (("ps", 1e-12), ("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0))
_ENERGIES = (("fJ", 1e-15), ("pJ", 1e-12), ("nJ", 1e-9), ("uJ", 1e-6), ("mJ", 1e-3), ("J", 1.0))
_POWERS = (("nW", 1e-9), ("uW", 1e-6), ("mW", 1e-3), ("W", 1.0), ("kW", 1e3))
_COLOURS = (BLUE, ORANGE, GREEN, VERMILION, SKY, "#CC79A7", "#F0E442")
_RATES = (("op/s", 1.0), ("kop/s", 1e3), ("Mop/s", 1e6), ("Gop/s", 1e9), ("Top/s", 1e12), ("Pop/s", 1e15))
_SHARES = {"busy": "busy", "blocked": "no room behind", "starved": "waiting to begin"}


class Stage(Protocol):
    """What pictures read of a stage."""

    @property
    def stage(self) -> str: ...
    @property
    def work_s(self) -> float: ...
    @property
    def busy(self) -> float: ...
    @property
    def blocked(self) -> float | None: ...
    @property
    def starved(self) -> float | None: ...
    @property
    def operations(self) -> int: ...
    @property
    def moved_bits(self) -> int: ...


class Run(Protocol):
    """What pictures read of a run in time."""

    @property
    def provenance(self) -> Source: ...
    @property
    def engine(self) -> str: ...
    @property
    def images(self) -> int: ...
    @property
    def stages(self) -> Sequence[Stage]: ...
    @property
    def bottleneck(self) -> str: ...
    @property
    def latency_s(self) -> float: ...
    @property
    def ii_s(self) -> float: ...
    @property
    def makespan_s(self) -> float: ...
    @property
    def energy_j(self) -> float: ...
    @property
    def energy_by_component(self) -> Mapping[str, float]: ...
    @property
    def energy_by_layer(self) -> Mapping[str, float]: ...
    @property
    def energy_of_layers(self) -> Mapping[str, Mapping[str, float]]: ...
    @property
    def power_w(self) -> float: ...
    @property
    def operations(self) -> int: ...
    @property
    def peak_ops_hz(self) -> float: ...
    @property
    def bus_bits_hz(self) -> float | None: ...
    @property
    def trace_edges_s(self) -> np.ndarray | None: ...
    @property
    def trace_power_w(self) -> np.ndarray | None: ...
    @property
    def bars(self) -> np.ndarray | None: ...


def _unit(units: tuple[tuple[str, float], ...], largest: float) -> tuple[str, float]:
    fitting = [unit for unit in units if unit[1] <= largest]
    return fitting[-1] if fitting else units[0]


def plot_stages(report: Run, ax: "Axes | None" = None) -> "Axes":
    """Draw the shares of the run of the stages that work longest: serving, without room, waiting to begin."""
    rows = [row for row in report.stages if row.work_s > 0.0]
    kept = {row.stage for row in sorted(rows, key=lambda row: -row.work_s)[:MOST_STAGES]}
    rows = [row for row in rows if row.stage in kept]
    ax = axes_for(ax, height=max(2.8, 0.22 * len(rows) + 1.4))
    places = np.arange(len(rows))
    left = np.zeros(len(rows))
    for name, colour in (("busy", BLUE), ("blocked", VERMILION), ("starved", "0.88")):
        share = np.array([float(getattr(row, name) or 0.0) for row in rows])
        ax.barh(places, share, left=left, color=colour, label=_SHARES[name])
        left += share
    ax.set_yticks(places, [short(row.stage) for row in rows], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlim(0.0, 1.0)
    ax.set_xlabel("share of the run")
    light_frame(ax, grid="x")
    legend_below(ax)
    interval = format_quantity(report.ii_s, "second", n_digits=3)
    work = next((row.work_s for row in report.stages if row.stage == report.bottleneck), report.ii_s)
    sets = f"{report.bottleneck} sets the interval of {interval}"
    slower = f"An image every {interval}, though {report.bottleneck} takes {format_quantity(work, 'second', n_digits=3)}"
    title(ax, sets if report.ii_s <= 1.01 * work else slower, note=_note(report, len(rows)))
    return ax


def _note(report: Run, shown: int) -> str:
    working = sum(row.work_s > 0.0 for row in report.stages)
    of = "" if shown == working else f", the {shown} that work longest of {working} stages"
    return f"{report.provenance.network}, {report.images} images, engine {report.engine}{of}"


def plot_gantt(report: Run, ax: "Axes | None" = None) -> "Axes":
    """Draw when stages work: bars of at most 2,000 groups of tokens."""
    if report.bars is None:
        raise SpecError('plot: no times of tokens are known, as of the bound; simulate with engine="recurrence" or "des"')
    working = [i for i, row in enumerate(report.stages) if row.work_s > 0.0]
    place = {stage: k for k, stage in enumerate(working)}
    ax = axes_for(ax, height=max(2.8, 0.17 * len(working) + 1.3))
    symbol, unit = _unit(_TIMES, report.makespan_s)
    for stage, k in place.items():
        bars = report.bars[report.bars[:, 0] == stage]
        spans = np.stack([bars[:, 1], np.maximum(bars[:, 2] - bars[:, 1], report.makespan_s * LEAST_BAR)], axis=1) / unit
        ax.broken_barh([(float(a), float(b)) for a, b in spans], (k - 0.4, 0.8), facecolors=BLUE if k % 2 else SKY, linewidth=0)
    ax.set_yticks(range(len(working)), [short(report.stages[i].stage) for i in working], fontsize=8 if len(working) < 40 else 5)
    ax.set_ylim(len(working) - 0.4, -0.6)
    ax.set_xlim(0.0, report.makespan_s / unit)
    ax.set_xlabel(f"time ({symbol})")
    light_frame(ax, grid="x")
    title(ax, f"{report.images} images in {format_quantity(report.makespan_s, 'second', n_digits=3)}", note=_note(report, len(working)))
    return ax


def plot_power(report: Run, ax: "Axes | None" = None) -> "Axes":
    """Draw power over time; the area under it is the energy of the run."""
    if report.trace_power_w is None or report.trace_edges_s is None:
        raise SpecError('plot: no power over time is known, as of the bound; simulate with engine="recurrence" or "des"')
    ax = axes_for(ax)
    symbol, unit = _unit(_POWERS, float(report.trace_power_w.max(initial=0.0)))
    tick, second = _unit(_TIMES, report.makespan_s)
    ax.stairs(report.trace_power_w / unit, report.trace_edges_s / second, fill=True, color=SKY)
    ax.axhline(report.power_w / unit, color=VERMILION, linewidth=1.3, label=f"mean {format_quantity(report.power_w, 'watt', n_digits=3)}")
    ax.set_xlabel(f"time ({tick})")
    ax.set_ylabel(f"power ({symbol})")
    ax.set_xlim(0.0, report.makespan_s / second)
    ax.set_ylim(0.0, 1.15 * float(report.trace_power_w.max(initial=0.0)) / unit or 1.0)
    light_frame(ax, grid="y")
    ax.legend(frameon=False, fontsize=9, loc="upper right")
    total = format_quantity(report.energy_j * report.images, "joule", n_digits=3)
    title(ax, f"{total} for {report.images} images", note=f"{report.provenance.network}, engine {report.engine}")
    return ax


def plot_energy(report: Run, ax: "Axes | None" = None) -> "Axes":
    """Draw the energy of one image by component."""
    if not report.energy_j:
        raise SpecError("plot: no part of the chip has an energy; give chip.parts some")
    parts = sorted(report.energy_by_component.items(), key=lambda item: -item[1])[:MOST_LAYERS]
    ax = axes_for(ax, height=max(2.4, 0.26 * len(parts) + 1.2))
    symbol, unit = _unit(_ENERGIES, parts[0][1])
    ax.barh(range(len(parts)), [value / unit for _, value in parts], color=BLUE)
    for k, (_, value) in enumerate(parts):
        share = f"{100 * value / report.energy_j:.1f} %"
        ax.annotate(share, (value / unit, k), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yticks(range(len(parts)), [short(name) for name, _ in parts], fontsize=8)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.set_xlabel(f"energy of an image ({symbol})")
    light_frame(ax, grid="x")
    total = format_quantity(report.energy_j, "joule", n_digits=3)
    title(ax, f"{total} an image, {parts[0][0]} the most", note=f"{report.provenance.network}, engine {report.engine}")
    return ax


def plot_layers(report: Run, ax: "Axes | None" = None) -> "Axes":
    """Draw the energy of one image by layer, the components that take most stacked."""
    if not report.energy_j:
        raise SpecError("plot: no part of the chip has an energy; give chip.parts some")
    largest = sorted(report.energy_by_layer, key=lambda name: -report.energy_by_layer[name])[:MOST_LAYERS]
    layers = [name for name in report.energy_of_layers if name in largest and report.energy_by_layer[name] > LEAST_SHARE * report.energy_j]
    parts = sorted(report.energy_by_component, key=lambda name: -report.energy_by_component[name])
    shown, others = parts[:MOST_COLOURS], parts[MOST_COLOURS:]
    ax = axes_for(ax, height=max(2.6, 0.24 * len(layers) + 1.5))
    symbol, unit = _unit(_ENERGIES, max(report.energy_by_layer.values()))
    left = np.zeros(len(layers))
    for name, colour, members in (*((p, c, [p]) for p, c in zip(shown, _COLOURS)), ("others", GREY, others)):
        values = np.array([sum(report.energy_of_layers[layer].get(member, 0.0) for member in members) for layer in layers]) / unit
        if values.any():
            ax.barh(range(len(layers)), values, left=left, color=colour, label=short(name))
        left += values
    ax.set_yticks(range(len(layers)), [short(name) for name in layers], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel(f"energy of an image ({symbol})")
    light_frame(ax, grid="x")
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    total = format_quantity(report.energy_j, "joule", n_digits=3)
    left_out = len(report.energy_by_layer) - len(layers)
    note = f"{report.provenance.network}, engine {report.engine}" + (f", {left_out} smaller left out" if left_out else "")
    title(ax, f"{total} an image", note=note)
    return ax


def plot_roofline(report: Run, ax: "Axes | None" = None) -> "Axes":
    """Draw each layer's operations a second at the interval over its operations a bit, under the roofs of arrays and buses."""
    rows = [row for row in report.stages if row.operations and row.moved_bits and row.work_s]
    if not rows:
        raise SpecError("plot: no layer has both operations and bits that are moved")
    ax = axes_for(ax)
    symbol, unit = _unit(_RATES, report.peak_ops_hz)
    intensity = np.array([row.operations / row.moved_bits for row in rows])
    ax.plot(intensity, [row.operations / report.ii_s / unit for row in rows], "o", color=BLUE, label="layers, at the interval")
    busy = [row.operations / row.work_s / unit for row in rows]
    ax.plot(intensity, busy, "_", color=ORANGE, markersize=12, label="layers, if always busy")
    across = np.geomspace(intensity.min() / 3, intensity.max() * 3, 50)
    roof = np.full(len(across), report.peak_ops_hz)
    if report.bus_bits_hz is not None:
        roof = np.minimum(roof, across * report.bus_bits_hz)
    ax.plot(across, roof / unit, color=VERMILION, label="the roof of all that is in use")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("operations a bit moved")
    ax.set_ylabel(symbol)
    light_frame(ax)
    ax.legend(frameon=False, fontsize=8, loc="best")
    share = report.operations / report.ii_s / report.peak_ops_hz
    title(ax, f"{100 * share:.3g} % of what all that is in use could do", note=f"{report.provenance.network}, engine {report.engine}")
    return ax
