"""What converters are set to: their ranges, from the signals of calibration samples.

Inputs are those of the float network, columns' signals those of the ideal stored weights on converted inputs. Signals are sampled
evenly, so that large maps take little memory; their largest magnitudes are exact.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from accelsim.accelerator import Accelerator
from accelsim.datapath import DataPath, InputDigits, blocks_of
from accelsim.lower import ArraySite
from devices.base.errors import SpecError
from devices.converter import Converter, SarConverter, SuccessiveApproximation, Uniform, range_from
from devices.law import ConverterLaw, SignalOperator
from workloads.operators.base import Array
from workloads.operators.matrix import ConvTranspose

SAMPLED = 1 << 16
"""Values taken of one signal of one chunk of images."""


@dataclass(slots=True, kw_only=True, eq=False)
class Signal:
    """Evenly sampled values, and the extremes of all of them."""

    low: float = 0.0
    high: float = 0.0
    parts: list[Array] = field(default_factory=list)

    def add(self, values: Array) -> None:
        """Add the values of a chunk."""
        flat = values.reshape(-1)
        self.low, self.high = min(self.low, float(flat.min())), max(self.high, float(flat.max()))
        self.parts.append(flat[:: max(1, flat.size // SAMPLED)].astype(np.float64))

    def values(self) -> Array:
        """Return the sampled values and both extremes."""
        return np.concatenate([*self.parts, [self.low, self.high]])

    def chosen_range(self, converter: ConverterLaw, *, where: str, worst: float, lattice: float | None = None) -> tuple[float, float]:
        """Return the range the converter's rule chooses; `worst` is the largest magnitude that can occur, `lattice` the step of them.

        `where` is the converter's place, for the SpecError where no range can be chosen.
        """
        assert isinstance(converter, Converter)  # specs know no other
        values = self.values()
        both_signs = (-worst if values.min() < 0.0 else 0.0), (worst if values.max() > 0.0 or values.min() >= 0.0 else 0.0)
        try:
            return range_from(values, converter, worst_case=both_signs, lattice=lattice)
        except SpecError as error:
            raise SpecError(f"{where}: {error}") from None


def needs_path(local: Accelerator) -> bool:
    """Whether values meet a converter on their way, or cells that conduct non-linearly."""
    return local.drive.dac is not None or local.sense.adc is not None or local.cell.conduction is not None


def input_path(site: ArraySite, local: Accelerator, inputs: Signal) -> DataPath:
    """Return the way of a layer's values with its input converters set, and ideal ones behind its columns."""
    dac, digits = None, None
    x_span = max(-inputs.low, inputs.high)
    if local.drive.dac is not None:
        low, high = inputs.chosen_range(local.drive.dac, where=f"drive.dac of layer {site.layer!r}", worst=x_span)
        dac = _placed(local.drive.dac, low, high, f"{site.layer} dac")
        x_span = max(-low, high)
        if local.drive.slice_bits is not None:
            assert isinstance(local.drive.dac, Converter)
            digits = _digits(local.drive.dac.ideal(low, high).step, low, high, local.drive.slice_bits)
    encoding, size = site.encoding, local.mapping.array
    return DataPath(
        operator=site.operator,
        gains=_gains(site),
        w_span=site.w_span,
        offset=None if encoding.kind == "differential" else _offset(site),
        x_span=x_span if x_span > 0.0 else 1.0,
        dac=dac,
        digits=digits,
        adcs=(),
        by_tile=isinstance(local.sense.adc, Converter) and local.sense.adc.range_per == "tile",
        blocks=blocks_of(site.operator, None if size is None else size.n_rows),
        conduction=site.conducting(),
    )


def _gains(site: ArraySite) -> tuple[float, ...]:
    return tuple(next(p.gain for p in site.encoding.parts if p.slice == s) for s in range(site.encoding.n_slices))


def _offset(site: ArraySite) -> Array:
    """Return what the zero of each slice conducts over the span, `(n_slices, n_columns)`."""
    span = np.where(site.span_siemens > 0.0, site.span_siemens, 1.0)
    return np.stack([part.zero + site.cell.g_min_siemens / span for part in site.encoding.parts])


def _digits(step: float, low: float, high: float, bits: int) -> InputDigits:
    largest = round(max(-low, high) / step)
    n_digits = 1
    while (1 << (bits * n_digits)) - 1 < largest:
        n_digits += 1
    return InputDigits(step=step, bits=bits, n_digits=n_digits)


def with_adcs(path: DataPath, site: ArraySite, converter: ConverterLaw, signals: list[Signal]) -> DataPath:
    """Return the path with a converter behind its columns, one setting a weight slice, or a row block and slice."""
    n, rows = len(path.gains), [float(_n_rows(path, i)) for i in range(len(path.blocks))]
    adcs = []
    for at, signal in enumerate(signals):
        worst = rows[at // n] if path.by_tile else max(rows)
        where = f"sense.adc of layer {site.layer!r}"
        low, high = signal.chosen_range(converter, where=where, worst=worst, lattice=_lattice(path, site, at % n))
        adcs.append(_placed(converter, low, high, f"{site.layer} adc {at}"))
    return replace(path, adcs=tuple(adcs))


def with_bits(path: DataPath, converter: ConverterLaw, layer: str, n_bits: int) -> tuple[DataPath, ConverterLaw]:
    """Return the path with as many bits behind its columns, over the same ranges, and the converter."""
    changed = replace(converter, n_bits=n_bits)  # type: ignore[type-var]
    adcs = []
    for s, adc in enumerate(path.adcs):
        ideal = adc.ideal if isinstance(adc, SuccessiveApproximation) else adc
        assert isinstance(ideal, Uniform)  # there are no others
        adcs.append(_placed(changed, ideal.low, ideal.high, f"{layer} adc {s}"))
    return replace(path, adcs=tuple(adcs)), changed


def _placed(converter: ConverterLaw, low: float, high: float, name: str) -> SignalOperator:
    return converter.placed(low, high, normals=converter.normals_of(name) if isinstance(converter, SarConverter) else None)


def _lattice(path: DataPath, site: ArraySite, s: int) -> float | None:
    """Return the step of a column's signals: that of a cell's digit times that of an input's; None where either is analog."""
    encoding = site.encoding
    if path.digits is None or encoding.n_levels is None:  # what g_min adds to offset cells is no multiple, and is converted with them
        return None
    levels = 2 ** encoding.slice_bits[s] if encoding.slice_bits else encoding.n_levels
    return 1.0 / ((levels - 1) * (2**path.digits.bits - 1))


def _n_rows(path: DataPath, block: int) -> int:
    taken = path.blocks[block].taken
    if taken is not None:
        return int(taken.sum())
    return path.operator.weights.shape[1] if isinstance(path.operator, ConvTranspose) else path.operator.n_rows


Watch = Callable[[int, Array], None]


def calibrated_paths(
    sites: dict[int, ArraySite], locals_: dict[int, Accelerator], walk_inputs: Callable[[Watch], None]
) -> dict[int, DataPath]:
    """Return the path of each layer that has converters; `walk_inputs(watch)` shows every layer's inputs, chunk by chunk."""
    wanted = [i for i in sites if needs_path(locals_[i])]
    if not wanted:
        return {}
    inputs = {i: Signal() for i in wanted}
    walk_inputs(lambda i, x: inputs[i].add(x) if i in inputs else None)
    paths = {i: input_path(sites[i], locals_[i], inputs[i]) for i in wanted}
    behind = {i: locals_[i].sense.adc for i in wanted if locals_[i].sense.adc is not None}
    slices = {i: tuple(part.astype(np.float32) for part in sites[i].ideal_slices()) for i in behind}
    signals = {i: [Signal() for _ in range(paths[i].n_adcs)] for i in behind}

    def watch(i: int, x: Array) -> None:
        if i in behind:
            for at, z in paths[i].signals(slices[i], x):
                signals[i][at].add(z)

    if behind:
        walk_inputs(watch)
    for i, converter in behind.items():
        assert converter is not None
        paths[i] = with_adcs(paths[i], sites[i], converter, signals[i])
    return paths


def refuse_rescaling(paths: Iterable[DataPath | None]) -> None:
    """Raise SpecError where ranges were chosen for other scales."""
    if any(path is not None and path.adcs for path in paths):
        raise SpecError("mapping.scale: converters were set for the scale that the network was placed with; place() it again with the new")
