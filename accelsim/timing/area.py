"""Area of a chip: its parts, and converters whose own model knows how large they are.

A converter's model counts where the chip has no part of its name ("adc", "dac"), and no part that holds the converters': nothing is
counted twice. There are as many ADCs as `chip.columns_per_adc` or `chip.adcs_per_tile` leave, one a column otherwise; DACs one a row.
"""

from accelsim.chip import rollup
from accelsim.timing.building import MappedStep
from accelsim.timing.mapping import TimedPlan
from accelsim.timing.services import array_size


def chip_area(timed: TimedPlan) -> dict[str, float]:
    """Return the area by part, square metres; parts without one are left out."""
    chip = timed.chip
    tiles = timed.n_tiles if chip.n_tiles is None else chip.n_tiles * timed.n_chips
    areas = {name: area for name, area in rollup(chip, tiles, timed.n_engines).area_m2.items() if area}
    if any(part.converters for part in chip.parts):
        return areas
    for name in {"adc", "dac"} - {part.name for part in chip.parts}:
        rounds = [sum(_converters(timed, m, name) for m in timed.steps if m.round == n) for n in range(timed.n_rounds)]
        if max(rounds):  # arrays that are written anew are the same arrays
            areas[name] = max(rounds)
    return areas


def _converters(timed: TimedPlan, mapped: MappedStep, name: str) -> float:
    """Return the area of one kind of converter of a layer's arrays; 0 where it is not known."""
    layer, arrays = mapped.step.on_arrays, mapped.n_arrays
    if layer is None:
        return 0.0
    converter = layer.sense.adc if name == "adc" else layer.drive.dac
    model = getattr(converter, "conversion", None)
    area = None if model is None or converter is None else model.area(converter.n_bits)
    if area is None:
        return 0.0
    rows, columns = array_size(layer)
    if name == "dac":
        return float(area * arrays * rows)
    if timed.chip.adcs_per_tile is not None:
        return float(area * arrays * timed.chip.adcs_per_tile / timed.chip.arrays_per_tile)
    return float(area * arrays * -(-columns // (timed.chip.columns_per_adc or 1)))
