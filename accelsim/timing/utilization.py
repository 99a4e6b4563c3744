"""How much of the time what computes has something to do, and what it could do: arrays, and the multiply-add units of digital engines."""

from accelsim.timing.digital import clock_hz
from accelsim.timing.graph import PS
from accelsim.timing.mapping import TimedPlan
from accelsim.timing.serial import reads_s
from accelsim.timing.services import array_size, stage_ps


def utilization(timed: TimedPlan, interval_ps: float) -> float:
    """Return the mean share of the time that arrays work, when images come at their interval; without arrays, multiply-add units."""
    if not timed.n_arrays:
        return multipliers_work(timed, interval_ps) or 0.0
    on_arrays = {m.step.name: m.n_arrays for m in timed.steps if m.step.on_arrays is not None}
    work = sum(on_arrays[stage.name] * stage.work_ps for stage in timed.graph.stages if stage.name in on_arrays)
    return work / (sum(on_arrays.values()) * interval_ps) if interval_ps else 0.0


def n_units(timed: TimedPlan) -> int:
    """Return the multiply-add units of all digital engines."""
    engine = timed.chip.digital
    return 0 if engine is None else timed.n_engines * engine.rows * engine.columns


def multipliers_work(timed: TimedPlan, interval_ps: float) -> float | None:
    """Return the mean share of the time that multiply-add units work, when images come at their interval; None without any."""
    units = n_units(timed)
    if not units or not interval_ps:
        return None
    cycles = sum(m.step.on_engine.operator.n_macs for m in timed.steps if m.step.on_engine is not None) / units
    return cycles / (clock_hz(timed.chip) * interval_ps * PS)


def peak_ops_hz(timed: TimedPlan) -> float:
    """Return the operations a second of all that is in use: every cell of every array in every read, all slices of inputs and weights, and
    every multiply-add unit in every cycle.
    """
    total = 2.0 * n_units(timed) * clock_hz(timed.chip)
    for mapped in timed.steps:
        layer = mapped.step.on_arrays
        if layer is not None:
            rows, columns = array_size(layer)
            weights = rows * columns / len(layer.site.encoding.parts)
            product_s = layer.n_input_slices * stage_ps(layer, timed.chip) * PS if timed.chip.serial is None else reads_s(layer, timed.chip)
            total += 2.0 * weights * mapped.n_arrays / product_s
    return total
