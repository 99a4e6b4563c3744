"""The digital engine: an array of multiply-add units that computes layers whose weights are words in a memory.

An engine takes a layer of one image as a whole: its folds pass over all positions, so the first result is complete in the last fold. With
c cycles of its folds (`accelsim.timing.systolic`), the clock f, and for each of the layer's memories n accesses of its port, t apart,

    service = max( c / f,  n t of weights,  of activations,  of partial sums ),      n = ceil(bits / bits of the port)           (1)

multiplying and moving numbers overlap: buffers are double. How many numbers a memory gives and takes is `accesses_of`: what energy counts.
Weights are read again for every image; with `weight` staying, once for each of its folds is once an inference. An engine that layers share
finishes a run of layers, those with no layer on arrays between them, for one image before it begins the run for the next image.

Inputs that are in no memory come from a tile's buffer, as often as they stream through the array: for M positions, N results of K products,

    K M ceil(N / columns)   with weights or results staying,   K M   with inputs staying.                                         (2)
"""

import math
from collections.abc import Sequence

from accelsim.chip import OF_ENGINES, Chip, Digital, Port
from accelsim.placement import PlacedLayer
from accelsim.stored_weights import WordSite
from accelsim.timing.graph import PS, picoseconds
from accelsim.timing.steps import Step
from accelsim.timing.systolic import groups_of, layer_cycles
from accelsim.values_in_memory import Access, accesses_of
from devices.base.errors import SpecError

ENGINE = "digital engine"
MULTIPLY = "multiply"
"""What limits a layer whose memories are never in the way."""
ALMOST = 1.0 - 1e-12
"""Bits of a number may be no whole number (check bits are shared); their products are rounded up, but for rounding errors."""


def engine_of(chip: Chip, layer: PlacedLayer) -> Digital:
    """Return the chip's engine; SpecError where it has none."""
    lever = f'[layers."{layer.name}"] memory.weights = "none" puts it on arrays'
    if chip.serial is not None:
        raise SpecError(f"chip.serial: layer {layer.name!r} is computed from weights in a memory, which such chips do not have; {lever}")
    if chip.digital is None:
        raise SpecError(
            f"chip.digital: absent, but layer {layer.name!r} is computed from weights in a memory; give it rows, columns and a part that "
            f'takes energy (`use = "digital_45nm"` has them), or {lever}'
        )
    return chip.digital


def check_engine(chip: Chip, layer: PlacedLayer) -> None:
    """Raise SpecError where the chip has no engine, or nobody says what its multiply-adds take."""
    engine_of(chip, layer)
    if not any(part.action in OF_ENGINES and part.action != "sum_bits" for part in chip.parts):
        raise SpecError(
            f"chip.parts: none takes energy for a multiply-add, but layer {layer.name!r} has {layer.operator.n_macs:,}; give a part "
            '[chip.parts.NAME] with per = "unit", action = "multiply_add", energy_j, tag and source; energy_j = "0 J" leaves it uncounted'
        )


def n_engines(chip: Chip, steps: Sequence[Step]) -> int:
    """Return how many engines there are."""
    if chip.digital is None:
        return 0
    return 1 if chip.digital.shared else sum(step.on_engine is not None for step in steps)


def clock_hz(chip: Chip) -> float:
    """Return the cycles a second of the engine."""
    return chip.clock_hz if chip.digital is None or chip.digital.clock_hz is None else chip.digital.clock_hz


def limits_ps(layer: PlacedLayer, chip: Chip) -> dict[str, int]:
    """Return each part of (1): of `multiply`, and of each memory that has a port."""
    engine = engine_of(chip, layer)
    cycles = layer_cycles(layer.operator, rows=engine.rows, columns=engine.columns, dataflow=engine.dataflow)
    found = {MULTIPLY: picoseconds(cycles / clock_hz(chip))}
    for access in accesses_of(layer):
        port: Port | None = getattr(engine, access.part)
        if port is not None:
            found[access.part] = picoseconds(_port_s(access, port, 1.0 / clock_hz(chip)))
    return found


def _port_s(access: Access, port: Port, cycle_s: float) -> float:
    memory, total = access.memory, 0.0
    for count, own_s in ((access.reads, memory.read_time_s), (access.writes, memory.write_time_s)):
        n_accesses = math.ceil(count * memory.stored_bits * ALMOST / port.bits)
        total += n_accesses * (max(cycle_s, own_s) if port.t_access_s is None else port.t_access_s)
    return total


def service_ps(layer: PlacedLayer, chip: Chip) -> int:
    """Return (1)."""
    return max(limits_ps(layer, chip).values())


def limit_of(layer: PlacedLayer, chip: Chip) -> str:
    """Return what (1) is: `multiply`, or the memory that is in the way."""
    limits = limits_ps(layer, chip)
    return max(limits, key=lambda name: limits[name])


def actions_of(layer: PlacedLayer, chip: Chip, *, value_bits: int) -> dict[str, int]:
    """Return what one image of a layer asks of the engine, and of the buffer where its inputs are in no memory."""
    engine, operator, site = engine_of(chip, layer), layer.operator, layer.site
    assert isinstance(site, WordSite)
    inputs = None if layer.buffers is None else layer.buffers.inputs
    bits = value_bits if inputs is None else inputs.memory.word.n_bits
    counts = {
        "multiply_add": operator.n_macs,
        "multiply_bits": operator.n_macs * site.memory.word.n_bits * bits,
        "sum_bits": operator.n_macs * (engine.sum_bits or 0),
    }
    return counts | ({"load": streamed(layer, engine) * bits} if inputs is None else {})


def streamed(layer: PlacedLayer, engine: Digital) -> int:
    """Return (2), of all groups: how many inputs the array takes in."""
    operator, groups = layer.operator, groups_of(layer.operator)
    inputs = groups * operator.n_rows * operator.n_positions
    return inputs if engine.dataflow == "input" else inputs * math.ceil(operator.n_columns // groups / engine.columns)


def stored_elsewhere(steps: Sequence[Step]) -> set[int]:
    """Return the steps whose results go to memories of activations only, whose writes are counted there, not to a tile's buffer."""
    readers: dict[int, list[Step]] = {}
    for step in steps:
        for source in step.sources:
            readers.setdefault(source.step, []).append(step)
    return {i for i, of_step in readers.items() if all(_reads_memory(step.on_engine) for step in of_step)}


def _reads_memory(layer: PlacedLayer | None) -> bool:
    return layer is not None and layer.buffers is not None and layer.buffers.inputs is not None


def runs_of(steps: Sequence[Step]) -> list[list[int]]:
    """Return the layers that an engine does in one go: those with no layer on arrays between them."""
    runs: list[list[int]] = [[]]
    for i, step in enumerate(steps):
        if step.on_engine is not None:
            runs[-1].append(i)
        elif step.on_arrays is not None and runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def engine_s(layers: Sequence[PlacedLayer], chip: Chip | None) -> float:
    """Return how long an image keeps the busiest engine busy, seconds; 0 where there is none."""
    if chip is None or chip.digital is None or chip.serial is not None:
        return 0.0
    works = [service_ps(layer, chip) for layer in layers if layer.is_digital]
    return (sum(works) if chip.digital.shared else max(works, default=0)) * PS
