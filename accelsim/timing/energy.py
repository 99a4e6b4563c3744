"""The energy of a run: counts of actions times what each takes, by component, action, layer and cause.

    energy = sum over parts, layers of  n(action, layer) e(part)  +  leakage power x time that it leaks

The first sum does not know which engine runs; time enters with leakage only. Every view of the ledger sums to the same total.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from accelsim.chip import Chip, Part
from accelsim.ledger import conversions_of, inferences_per_second, read_power
from accelsim.placement import PlacedLayer, Plan, check_question
from accelsim.response.target import mean_weights
from accelsim.timing.building import MappedStep
from accelsim.timing.digital import ENGINE
from accelsim.timing.graph import PS
from accelsim.timing.mapping import TimedPlan
from accelsim.timing.recurrence import Times
from accelsim.timing.services import value_bits
from accelsim.values_in_memory import accesses_of
from devices.base.errors import SpecError
from workloads.samples import Samples

Key: TypeAlias = tuple[str, str, str, str]
"""Component, action, layer, cause."""
CAUSES = {
    "read": "compute", "drive": "compute", "convert": "compute", "merge": "compute", "compute": "compute", "load": "move", "store": "move",
    "move": "move", "off_chip": "move", "write": "write", "multiply_add": "compute", "multiply_bits": "compute", "sum_bits": "compute",
}  # fmt: skip
LEAK = "leak"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """How often something happened, and the energy it took, joules."""

    count: float
    energy_j: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """All energy of a run, by component, action, layer and cause."""

    entries: Mapping[Key, Entry]

    @property
    def total_j(self) -> float:
        """Sum of all entries."""
        return _sum(entry.energy_j for entry in self.entries.values())

    def by(self, view: str) -> dict[str, float]:
        """Return the energy by `component`, `action`, `layer` or `cause`: each view sums to the total."""
        place = ("component", "action", "layer", "cause").index(view)
        groups: dict[str, list[float]] = {}
        for key, entry in self.entries.items():
            groups.setdefault(key[place], []).append(entry.energy_j)
        return {name: _sum(energies) for name, energies in groups.items()}

    def of_layers(self) -> dict[str, dict[str, float]]:
        """Return the energy by layer and component."""
        found: dict[str, dict[str, list[float]]] = {}
        for (component, _, layer, _), entry in self.entries.items():
            found.setdefault(layer, {}).setdefault(component, []).append(entry.energy_j)
        return {layer: {component: _sum(energies) for component, energies in parts.items()} for layer, parts in found.items()}

    def times(self, n: int) -> "Ledger":
        """Return the ledger of n times as many images."""
        return Ledger(entries={key: Entry(count=n * e.count, energy_j=n * e.energy_j) for key, e in self.entries.items()})

    def plus(self, other: "Ledger") -> "Ledger":
        """Return both ledgers together; they have no key in common."""
        return Ledger(entries={**self.entries, **other.entries})


def _sum(values: Iterator[float] | list[float]) -> float:
    """Return the sum, exactly rounded, so that the order of summands does not matter."""
    return float(sum(map(Fraction, values), Fraction(0)))


def image_ledger(timed: TimedPlan, *, samples: Samples | None = None) -> Ledger:
    """Return what one image takes without leakage; with samples, the cells' energy follows from their conductances and inputs."""
    entries: dict[Key, Entry] = {}
    data = {} if samples is None else _cells_from_data(timed.plan, samples)
    energies = [part for part in timed.chip.parts if part.action is not None and part.energy_j > 0.0]
    for part in energies:
        if part.cells and data:
            continue
        for layer, count in _counts(timed, part).items():
            assert part.action is not None
            _add(entries, (part.name, part.action, layer, CAUSES[part.action]), count, part.energy_j)
    for mapped in timed.steps:
        for key, count, energy in _converters(timed.chip, mapped, energies):
            _add(entries, key, count, energy)
    for placed in timed.plan.layers:
        for key, count, energy in _memories(placed):
            _add(entries, key, count, energy)
    for (component, name), energy_j in data.items():
        entries[component, "read", name, "compute"] = Entry(count=_reads(timed, name), energy_j=energy_j)
    return Ledger(entries=entries)


def _add(entries: dict[Key, Entry], key: Key, count: float, energy_j: float) -> None:
    if count:
        before = entries.get(key, Entry(count=0.0, energy_j=0.0))
        entries[key] = Entry(count=before.count + count, energy_j=before.energy_j + count * energy_j)


def _counts(timed: TimedPlan, part: Part) -> dict[str, float]:
    """Return how often a part acts for one image, by layer."""
    assert part.action is not None
    if part.action == "write":
        return {"weights": float(timed.written_cells)}
    counts: dict[str, float] = {m.step.name: float(m.actions.get(part.action, 0)) for m in timed.steps}
    if part.action == "off_chip":
        bits = value_bits(timed.plan, timed.chip)
        shape = timed.plan.graph.input_shape
        n_in = 1
        for n in shape:
            n_in *= n
        counts |= {"image": float(n_in * bits), "output": float(timed.plan.n_out * bits), "weights": float(timed.written_bits)}
    return counts


def _converters(chip: Chip, mapped: MappedStep, parts: list[Part]) -> Iterator[tuple[Key, float, float]]:
    """Yield the conversions of a layer whose energy the converters' own model knows."""
    layer = mapped.step.on_arrays
    if layer is None or any(part.converters for part in parts):
        return
    counted = conversions_of(layer)
    for name, action, converter, known in (
        ("dac", "drive", layer.drive.dac, counted.dac), ("adc", "convert", layer.sense.adc, counted.adc)
    ):  # fmt: skip
        model = getattr(converter, "conversion", None)
        if model is None or converter is None:
            continue
        own = next((part.name for part in parts if part.action == action), None)
        if own is not None:
            raise SpecError(
                f"chip.parts.{own}: takes energy for each {action!r}, and so does the {name}'s own conversion; leave one of them out"
            )
        count = mapped.actions[action] if chip.serial is not None else known or mapped.actions[action]
        yield (name, action, mapped.step.name, "compute"), count, model.energy_j(converter.n_bits)  # type: ignore[attr-defined]


def _memories(layer: PlacedLayer) -> Iterator[tuple[Key, float, float]]:
    """Yield what a layer reads from memories and writes into them: numbers, and the energy of each."""
    for access in accesses_of(layer):
        for action, count in (("load", access.reads), ("store", access.writes)):
            energy_j = access.memory.cost("read" if action == "load" else "write").energy_j
            if count and energy_j:
                yield (f"memory_{access.part}", action, layer.name, "memory"), float(count), energy_j


def _reads(timed: TimedPlan, layer: str) -> float:
    return next(float(m.actions["read"]) for m in timed.steps if m.step.name == layer)


def _cells_from_data(plan: Plan, samples: Samples) -> dict[tuple[str, str], float]:
    """Return the energy of cells and amplifiers of one image, by layer: the predictor's read power over the rate it is at."""
    check_question(plan, samples)
    if all(layer.is_digital for layer in plan.layers):
        return {}
    powers = read_power(plan, plan.graph, samples, [mean_weights(plan)])
    rate = inferences_per_second(plan)
    found: dict[tuple[str, str], float] = {}
    on_arrays = {layer.name for layer in plan.layers if not layer.is_digital}
    for layer, power in powers.items():
        if layer not in on_arrays:
            continue
        found["memristors", layer] = power.memristors_w / rate
        if power.amplifiers_w:
            found["amplifiers", layer] = power.amplifiers_w / rate
    return found


def leakage(timed: TimedPlan, times: Times | None, makespan_ps: float, n_images: int) -> Ledger:
    """Return what leaks in a run, by the chip's policy; without times (a bound), gated parts leak while their layers work."""
    chip = timed.chip
    tiles = timed.n_tiles if chip.n_tiles is None else chip.n_tiles * timed.n_chips
    by_name = {m.step.name: m for m in timed.steps}
    entries: dict[Key, Entry] = {}
    for part in chip.parts:
        total = chip.count_of(part, tiles, timed.n_engines) * part.leakage_w
        if not total:
            continue
        if part.per == "chip" or chip.leakage == "always_on":
            entries[part.name, LEAK, "chip", LEAK] = Entry(count=1.0, energy_j=total * makespan_ps * PS)
            continue
        if part.per == "unit":
            for stage, window in _engine_windows(timed, times, makespan_ps, n_images).items():
                entries[part.name, LEAK, stage, LEAK] = Entry(count=1.0, energy_j=total / timed.n_engines * window * PS)
            continue
        an_array = total / (tiles * chip.arrays_per_tile)
        for stage, window in _windows(timed, times, makespan_ps, n_images).items():
            energy = an_array * by_name[stage].n_arrays * window * PS
            if energy:
                entries[part.name, LEAK, stage, LEAK] = Entry(count=1.0, energy_j=energy)
    return Ledger(entries=entries)


def _windows(timed: TimedPlan, times: Times | None, makespan_ps: float, n_images: int) -> dict[str, float]:
    """Return for how long the arrays of each layer are not gated."""
    return _gated(timed, times, makespan_ps, n_images, names={m.step.name for m in timed.steps if m.step.on_arrays is not None})


def _engine_windows(timed: TimedPlan, times: Times | None, makespan_ps: float, n_images: int) -> dict[str, float]:
    """Return for how long an engine is not gated: while each of its layers works, or until its last layer is done."""
    names = {m.step.name for m in timed.steps if m.step.on_engine is not None}
    windows = _gated(timed, times, makespan_ps, n_images, names=names)
    if timed.graph.resources.get(ENGINE) and timed.chip.leakage == "gate_after_last":
        last = max(windows, key=lambda name: windows[name])
        return {last: windows[last]}
    return windows


def _gated(timed: TimedPlan, times: Times | None, makespan_ps: float, n_images: int, *, names: set[str]) -> dict[str, float]:
    """Return for how long each of the stages is not gated."""
    windows = {}
    for i, stage in enumerate(timed.graph.stages):
        if stage.name not in names:
            continue
        if timed.chip.leakage == "gate_idle":
            windows[stage.name] = float(stage.work_ps * n_images)
        else:
            windows[stage.name] = makespan_ps if times is None else float(times.leave[i][-1])
    return windows
