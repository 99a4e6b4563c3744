"""Budgets of a whole inference as budgets of reading: what is left for the arrays when everything else has had its share.

    energy of an inference = read power / rate + what the rest of the ledger takes (moves, digital units, leakage over the interval)    (1)

so an energy budget is a budget of the read power that the optimizer knows. Latency and area do not depend on conductances: they are met,
or not.
"""

from dataclasses import dataclass

import numpy as np

from accelsim.ledger import converter_power, inferences_per_second
from accelsim.placement import Plan
from accelsim.timing.area import chip_area
from accelsim.timing.bound import bound
from accelsim.timing.digital import ENGINE, MULTIPLY, limits_ps
from accelsim.timing.energy import image_ledger, leakage
from accelsim.timing.graph import PS
from accelsim.timing.mapping import TimedPlan, map_in_time
from accelsim.timing.recurrence import recurrence
from devices.base.errors import InfeasibleError, SpecError
from devices.base.quantity import format_quantity

CONVERTERS = ("adc", "dac")
MEMORIES = ("memory_weights", "memory_activations", "memory_partial_sums")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadShare:
    """Of an energy budget: the energy of everything but reading, and the read power that is left."""

    rest_j: float
    read_power_w: float


def rest_of(timed: TimedPlan) -> float:
    """Return what an inference takes beside reading: what the read power counts (cells, amplifiers, converters, memories) is left out."""
    cells = {part.name for part in timed.chip.parts if part.cells}
    image = image_ledger(timed)
    counted = cells | set(MEMORIES) if any(part.converters for part in timed.chip.parts) else cells | {*CONVERTERS, *MEMORIES}
    rest = sum(energy for name, energy in image.by("component").items() if name not in counted)
    interval = bound(timed.graph).interval_ps
    return rest + leakage(timed, None, interval, 1).total_j


def read_share(plan: Plan, energy_budget_j: float) -> ReadShare:
    """Return what (1) leaves for reading; InfeasibleError where the rest alone takes more.

    Without a [chip] there is no rest that is known: the budget is all for arrays, converters and memories.
    """
    if not 0.0 < energy_budget_j < np.inf:
        raise SpecError(f"need an energy budget above 0, got {energy_budget_j:g} J")
    rate = inferences_per_second(plan)
    if plan.accelerator.chip is None:
        return ReadShare(rest_j=0.0, read_power_w=energy_budget_j * rate)
    timed = map_in_time(plan)
    rest = rest_of(timed)
    inside = any(part.converters for part in timed.chip.parts)  # their energy is then in the rest, and in the read power too
    converters = sum(sum(converter_power(plan, layer)) for layer in plan.layers) if inside else 0.0
    left = (energy_budget_j - rest) * rate + converters
    if left <= 0.0:
        raise InfeasibleError(
            f"everything but reading takes {_j(rest)} an inference, and the budget is {_j(energy_budget_j)}; give more, or make "
            f"chip.parts, leakage or the interval ({_quicker(timed)}) smaller"
        )
    return ReadShare(rest_j=rest, read_power_w=left)


def check_latency(plan: Plan, latency_budget_s: float) -> float:
    """Return the latency of one image; InfeasibleError where it is above the budget."""
    if not 0.0 < latency_budget_s < np.inf:
        raise SpecError(f"need a latency budget above 0, got {latency_budget_s:g} s")
    timed = map_in_time(plan)
    latency = recurrence(timed.graph, np.zeros(1, np.int64)).makespan_ps * PS
    if latency > latency_budget_s:
        slowest = bound(timed.graph).bottleneck
        raise InfeasibleError(
            f"an image takes {format_quantity(latency, 'second', n_digits=4)}, and the budget is "
            f"{format_quantity(latency_budget_s, 'second', n_digits=4)}; conductances do not change it: {_faster(timed, slowest)}"
        )
    return latency


def _faster(timed: TimedPlan, slowest: str) -> str:
    """Return what would make an image quicker."""
    if not timed.n_arrays or slowest == ENGINE:
        layers = {m.step.name: limits_ps(m.step.on_engine, timed.chip) for m in timed.steps if m.step.on_engine is not None}
        longest = max(layers, key=lambda name: max(layers[name].values()))
        limit = max(layers[longest], key=lambda name: layers[longest][name])
        more = "chip.digital.rows, columns or clock_hz" if limit == MULTIPLY else f"chip.digital.{limit}.bits"
        return f"give {longest!r} a larger {more}"
    return f"give {slowest!r} more copies (mapping.replicas), or a shorter drive.t_read_s"


def _quicker(timed: TimedPlan) -> str:
    return "mapping.replicas" if timed.n_arrays else "chip.digital"


def check_budget(area_budget_m2: float) -> None:
    """Raise SpecError unless an area is one."""
    if not 0.0 < area_budget_m2 < np.inf:
        raise SpecError(f"need an area budget above 0, got {area_budget_m2:g} m2")


def check_area(plan: Plan, area_budget_m2: float) -> float:
    """Return the area of the chip; InfeasibleError where it is above the budget."""
    check_budget(area_budget_m2)
    timed = map_in_time(plan)
    areas = chip_area(timed)
    if not areas:
        raise SpecError("chip.parts: none has an area_m2, and no converter's model knows its own; an area budget needs them")
    total = sum(areas.values())
    if total > area_budget_m2:
        largest = max(areas, key=lambda name: areas[name])
        raise InfeasibleError(
            f"the chip takes {total * 1e6:.4g} mm2 on {timed.n_tiles} tiles, and the budget is {area_budget_m2 * 1e6:.4g} mm2; most of "
            f"it is {largest!r} ({areas[largest] * 1e6:.4g} mm2): {_smaller(timed, largest)}, or give more"
        )
    return total


def _smaller(timed: TimedPlan, largest: str) -> str:
    of_engine = any(part.name == largest and part.per == "unit" for part in timed.chip.parts)
    if of_engine or not timed.n_arrays:
        return "fewer chip.digital.rows or columns"
    return "fewer mapping.slice_bits or mapping.replicas, a larger chip.columns_per_adc"


def arrays_within(plan: Plan, area_budget_m2: float) -> int:
    """Return how many arrays an area has room for: whole tiles beside what the chip has once, each array with its converters."""
    timed = map_in_time(plan)
    check_budget(area_budget_m2)
    if not timed.n_arrays:
        raise SpecError("area_budget_m2: no layer is on arrays, so there are no slices to choose; leave slice_bits out")
    tiles = timed.n_tiles if timed.chip.n_tiles is None else timed.chip.n_tiles * timed.n_chips
    areas, once = chip_area(timed), sum(
        part.area_m2 * timed.chip.count_of(part, 0, timed.n_engines) for part in timed.chip.parts if part.per in ("chip", "unit")
    )
    own = {part.name for part in timed.chip.parts}
    an_array = sum(area for name, area in areas.items() if name not in own) / timed.n_arrays
    a_tile = (sum(area for name, area in areas.items() if name in own) - once) / tiles
    per_tile = timed.chip.arrays_per_tile
    if a_tile + an_array <= 0.0:
        raise SpecError("chip.parts: none of a tile has an area_m2, and no converter's model knows its own; an area budget needs them")
    whole = int((area_budget_m2 - once) // (a_tile + per_tile * an_array))
    left = area_budget_m2 - once - whole * (a_tile + per_tile * an_array) - a_tile
    return max(whole * per_tile + (int(left // an_array) if left > 0.0 and an_array > 0.0 else 0), 0)


def _j(energy_j: float) -> str:
    return format_quantity(energy_j, "joule", n_digits=4)
