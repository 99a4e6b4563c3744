"""How long a product on arrays takes, and how many arrays that are: read, conversion, and the numbers that the rest counts with.

A product at one pixel takes `n_slices` reads, one after the other in a pipeline of stages of equal length t:

    t = max( read time, columns an ADC serves x conversion time ),   service = n_slices t,   fill = (stages - 1) t        (1)
"""

import math

from accelsim.chip import Chip
from accelsim.placement import PlacedLayer, Plan
from accelsim.timing.graph import picoseconds
from accelsim.timing.grid import Pair
from accelsim.timing.serial import arrays_of
from devices.base.errors import SpecError
from devices.converter import Converter


def array_size(layer: PlacedLayer) -> Pair:
    """Return rows and columns of the arrays a layer is on; the layer's own where they are as large as it takes."""
    size = layer.site.mapping.array
    columns = layer.operator.n_columns * len(layer.site.encoding.parts)
    return (
        layer.operator.n_rows if size is None or size.n_rows is None else size.n_rows,
        columns if size is None or size.n_columns is None else size.n_columns,
    )


def arrays_of_copy(layer: PlacedLayer, chip: Chip) -> int:
    """Return the arrays of one copy of a layer."""
    if chip.serial is not None:
        return arrays_of(layer)
    if chip.slices == "together":
        return layer.n_arrays
    _, columns = array_size(layer)
    parts = len(layer.site.encoding.parts)
    return layer.n_row_blocks * math.ceil(layer.operator.n_columns / columns) * parts


def stage_ps(layer: PlacedLayer, chip: Chip) -> int:
    """Return t of (1)."""
    if layer.drive.t_read_s is None:
        raise SpecError("drive.t_read_s: absent, but time needs it; set it")
    _, columns = array_size(layer)
    convert = _conversion_s(layer, chip)
    times = [layer.drive.t_read_s]
    if convert is not None and chip.columns_per_adc is not None:
        times.append(min(chip.columns_per_adc, columns) * convert)
    if convert is not None and chip.adcs_per_tile is not None:
        times.append(columns * min(chip.arrays_per_tile, arrays_of_copy(layer, chip)) * convert / chip.adcs_per_tile)
    return picoseconds(max(times))


def _conversion_s(layer: PlacedLayer, chip: Chip) -> float | None:
    if chip.t_convert_s is not None:
        return chip.t_convert_s
    adc = layer.sense.adc
    time = adc.conversion_s if isinstance(adc, Converter) else None
    if time is None and (chip.columns_per_adc is not None or chip.adcs_per_tile is not None):
        raise SpecError("chip.t_convert_s: absent, and neither sense.adc nor its conversion says how long a conversion takes; set it")
    return time


def value_bits(plan: Plan, chip: Chip) -> int:
    """Return the bits of an activation."""
    return chip.value_bits or int(getattr(plan.accelerator.drive.dac, "n_bits", 8))
