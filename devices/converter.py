"""Converters between the analog and the digital: a staircase over a range, what a range should be, and a mismatched chip's.

A code k stands for the value offset + k step. A signal gets the nearest code, ties to the even k, and the first or last code
beyond the ends. With B = 2^n_bits the codes of `Uniform` are

    low = -high        k = -(B/2 - 1) .. B/2 - 1,   step = high/(B/2 - 1)       odd many, zero is one of them        (1)
    low <= 0 <= high   B codes from k = rint(low/step), step = (high - low)/(B - 1), offset 0: zero is a code        (2)
    else               k = 0 .. B - 1,              step = (high - low)/(B - 1), offset low                          (3)

so 8 bits are 254 steps over a symmetric range (as in aihwkit) and 255 over one from zero; in (2) the ends move by half a step at
most. Errors are deterministic functions of the signal: `moments` are exact for a Gaussian signal (see `converter_moments`), and
without variance there is none. A variance of step^2/12 is only what they tend to for signals that vary over many steps.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

import numpy as np

from devices.base.errors import SpecError
from devices.base.jit import jit
from devices.base.stream import normals as stream_normals
from devices.base.stream import site_id
from devices.base.toml_codec import about, check_types, raise_faults
from devices.converter_cost import COST_MODELS, ConverterCost
from devices.converter_moments import fill_clipped, fill_even, fill_uneven
from devices.law import ConverterLaw, SignalOperator, Values

Range: TypeAlias = Literal["fixed", "max", "percentile", "mse", "full", "granular"]
Grid: TypeAlias = tuple[float, float, float, float]
MAX_BITS, MAX_SAR_BITS = 24, 16
"""float32 has 24 bits; a mismatched converter keeps each of its transition levels."""
N_TOPS, SMALLEST_TOP, N_FINER, N_GOLDEN = 48, 1e-3, 96, 40
"""Tops tried for the least mean squared error: so many from this much of the maximum up, finer ones beside the best, golden sections."""
GOLDEN = (5.0**0.5 - 1.0) / 2.0


@jit()
def _fill_codes(signal: Values, grid: Grid, out: Values) -> None:
    """Fill offset + step min(max(rint((x - offset)/step), k_low), k_high), flat."""
    offset, step, k_low, k_high = grid
    for i in range(signal.size):
        k = np.rint((signal[i] - offset) / step)
        k = k_low if k < k_low else k
        k = k_high if k > k_high else k
        out[i] = offset + k * step


@jit()
def _squared_error(signal: Values, grid: Grid) -> float:
    """Return sum (Q(x) - x)^2, flat."""
    offset, step, k_low, k_high = grid
    total = 0.0
    for i in range(signal.size):
        k = np.rint((signal[i] - offset) / step)
        k = k_low if k < k_low else k
        k = k_high if k > k_high else k
        total += (offset + k * step - signal[i]) ** 2
    return total


@jit()
def _fill_successive(signal: Values, grid: Grid, weights: Values, out: Values) -> None:
    """Fill by successive approximation: from the largest bit, a bit is set if its weight fits into what is left, plus half a step."""
    offset, step, k_low, k_high = grid
    last = k_high - k_low
    for i in range(signal.size):
        left = (signal[i] - offset) / step - k_low + 0.5
        code = 0.0
        for bit in range(weights.size - 1, -1, -1):
            if left >= weights[bit]:
                left -= weights[bit]
                code += 2.0**bit
        out[i] = offset + (k_low + min(code, last)) * step if left == left else np.nan


def clip_moments(mean: Values, variance: Values, *, low: float, high: float) -> tuple[Values, Values, Values]:
    """Return mean, variance and Stein gain of min(max(z, low), high) for z ~ N(mean, variance), in closed form.

    By (1) to (3) of `converter_moments`, low <= high, one of them may be infinite. Shapes are broadcast;
    without variance it is the clipped value and its slope.
    """
    if not low <= high or (np.isinf(low) and np.isinf(high)):
        raise SpecError(f"need low <= high, one of them finite, got {low:g} and {high:g}")
    m, v, out = _flat(mean, variance)
    fill_clipped(m, v, low, high, *out)
    return _typed(out, mean, variance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform(SignalOperator):
    """A converter of even steps over a known range: codes by (1) to (3) of the module.

    Parameters
    ----------
    n_bits
        1 to 24; at least 2 where the range is symmetric.
    low, high
        Ends of the range, in the unit of the signal.
    """

    kind: ClassVar[str] = "uniform"
    cause: ClassVar[str] = "conversion"
    n_bits: int
    low: float
    high: float

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        _check_bits(self.n_bits, MAX_BITS)
        if not self.low < self.high:
            raise SpecError(f"need low < high, got {self.low:g} and {self.high:g}; a range without width has no codes")
        if self.low == -self.high and self.n_bits < 2:
            raise SpecError(f"n_bits: {self.n_bits}: need 2 or more over {self.low:g}..{self.high:g}, for zero and a code on either side")
        if not 0.0 < self.step < np.inf:
            raise SpecError(f"high: {self.high:g}: no float64 holds (high - low)/{self.n_codes - 1}; give the signal in another unit")

    @property
    def n_codes(self) -> int:
        """Number of codes: one less than 2^n_bits over a symmetric range."""
        return 2**self.n_bits - (1 if self.low == -self.high else 0)

    @property
    def step(self) -> float:
        """Difference of neighbouring codes, in the unit of the signal."""
        return (self.high - self.low) / (self.n_codes - 1)

    @property
    def lowest(self) -> float:
        """Value of the first code."""
        offset, step, k_low, _ = self.grid
        return offset + k_low * step

    @property
    def highest(self) -> float:
        """Value of the last code."""
        offset, step, _, k_high = self.grid
        return offset + k_high * step

    @property
    def grid(self) -> Grid:
        """Offset, step, first k and last k."""
        step, n_steps = self.step, float(self.n_codes - 1)
        if self.low == -self.high:
            return 0.0, step, -0.5 * n_steps, 0.5 * n_steps
        if self.low <= 0.0 <= self.high:
            k_low = float(np.rint(self.low / step))
            return 0.0, step, k_low, k_low + n_steps
        return self.low, step, 0.0, n_steps

    def value(self, signal: Values) -> Values:
        """Return the value of the code of each signal, in its shape and type."""
        x, out = _in_and_out(signal)
        _fill_codes(x.reshape(-1), self.grid, out.reshape(-1))
        return out

    def slope(self, signal: Values) -> Values:
        """Return 1 between the first and the last code, 0 beyond: what small errors see on average over the steps."""
        return _inside(signal, self.lowest, self.highest)

    def moments(self, mean: Values, variance: Values) -> tuple[Values, Values, Values]:
        """Return mean, variance and Stein gain Cov(Q, z)/variance of the output for z ~ N(mean, variance), exactly (to 1e-11 of a step).

        Shapes are broadcast. Without variance: value, 0 and slope.
        """
        m, v, out = _flat(mean, variance)
        fill_even(m, v, self.grid, *out)
        return _typed(out, mean, variance)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SuccessiveApproximation(SignalOperator):
    """One chip's converter by successive approximation, with capacitors that are not quite powers of two.

    The bit k tries the weight w_k instead of 2^k steps; the digital side knows nothing of it, and code k still stands for the value that
    `ideal` gives it. So the output is a monotone staircase of even heights whose transition levels are off: level T(c) of code c,
    whose bits are b and whose lower bits are c', is

        T(c) = w_k + max(T(c'), 0) if b_k = 1,     min(w_k, T(c')) if b_k = 0,     T(nothing) = -inf            (4)

    in steps above half a step below the first code.

    Parameters
    ----------
    ideal
        The converter without mismatch.
    weights
        w_k in steps, smallest bit first, `(n_bits,)`; they sum to 2^n_bits - 1, for the ends of the range are calibrated.
    transitions
        Levels of the signal at which the output rises, `(n_codes - 1,)`.
    """

    kind: ClassVar[str] = "sar"
    cause: ClassVar[str] = "conversion"
    ideal: Uniform
    weights: Values
    transitions: Values

    def value(self, signal: Values) -> Values:
        """Return the value of the code found by successive approximation, in the shape and type of the signal."""
        x, out = _in_and_out(signal)
        _fill_successive(x.reshape(-1), self.ideal.grid, self.weights, out.reshape(-1))
        return out

    def slope(self, signal: Values) -> Values:
        """Return 1 within the range, 0 beyond, as of the ideal converter; the slope of the nonlinearity itself is left out."""
        return self.ideal.slope(signal)

    def moments(self, mean: Values, variance: Values) -> tuple[Values, Values, Values]:
        """Return mean, variance and Stein gain, exactly, from the transition levels within 8.5 standard deviations.

        Time grows with their number: at most 2^n_bits for each element.
        """
        m, v, out = _flat(mean, variance)
        fill_uneven(m, v, self.ideal.grid, self.transitions, *out)
        return _typed(out, mean, variance)

    def inl_steps(self) -> Values:
        """Return the integral nonlinearity: by how many steps each transition level is off, `(n_codes - 1,)`."""
        grid = self.ideal.grid
        even = grid[0] + (grid[2] + np.arange(self.transitions.size) + 0.5) * grid[1]
        return np.asarray((self.transitions - even) / grid[1])

    def dnl_steps(self) -> Values:
        """Return the differential nonlinearity: width of each code between the first and the last, in steps, less one, `(n_codes - 2,)`."""
        return np.diff(self.transitions) / self.ideal.step - 1.0


# what a spec holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Converter(ConverterLaw):
    """A converter before its range is known. `placed` gives the operator; `range_from` gives a range from calibration signals."""

    kind: ClassVar[str]
    takes_normals: ClassVar[bool] = False
    """Whether `placed` takes n_bits independent standard normals: the chip's."""
    n_bits: int = field(metadata=about(f"Width of the code, 1 to {MAX_BITS}.", at_least=1))
    range: Range = field(default="max", metadata=about(
        "Where the range is from: full_scale (fixed), the largest calibration signal (max), a percentile of them, the least mean squared "
        "error over them (mse), the worst case that can occur (full), or the least power of two of the steps of integer sums that holds "
        "that (granular).",
    ))  # fmt: skip
    full_scale: float | None = field(
        default=None,
        metadata=about("Largest magnitude, of inputs in their unit, of columns in cells all on.", above=0.0, absent="range is not fixed"),
    )
    percentile: float | None = field(
        default=None, metadata=about("Percentile of the magnitudes, to 100.", above=0.0, absent="range is no percentile")
    )
    range_per: Literal["layer", "tile"] = field(default="layer", metadata=about(
        "What has a range of its own: a layer, or each of the row blocks that it is spread over (columns only).",
    ))  # fmt: skip
    conversion: ConverterCost | None = field(
        default=None,
        metadata=about("What a conversion takes.", absent="its energy, time and area are not known", kinds=lambda: dict(COST_MODELS)),
    )

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        _check_bits(self.n_bits, MAX_SAR_BITS if self.takes_normals else MAX_BITS)
        if self.range == "fixed" and self.full_scale is None:
            raise SpecError("full_scale: missing; range = fixed needs the largest magnitude, in the unit of the signal")
        if self.range == "percentile" and (self.percentile is None or self.percentile > 100.0):
            raise SpecError(f"percentile: {self.percentile}: range = percentile needs one above 0 and at most 100, e.g. 99.9")

    @property
    def conversion_s(self) -> float | None:
        """Time of one conversion: the ramp's own, or its model's; None where neither says."""
        return None if self.conversion is None else self.conversion.time_s(self.n_bits)

    @abstractmethod
    def ideal(self, low: float, high: float) -> Uniform:
        """Return the codes over a range, without what differs from chip to chip."""

    @abstractmethod
    def placed(self, low: float, high: float, *, normals: Values | None = None) -> SignalOperator:
        """Return the converter over a range; `normals`, `(n_bits,)`, for those that differ from chip to chip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformConverter(Converter):
    """Even steps by two's complement or offset binary: 2^n_bits - 2 over a symmetric range, 2^n_bits - 1 over others."""

    kind: ClassVar[str] = "uniform"

    def ideal(self, low: float, high: float) -> Uniform:
        return Uniform(n_bits=self.n_bits, low=low, high=high)

    def placed(self, low: float, high: float, *, normals: Values | None = None) -> Uniform:
        return self.ideal(low, high)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignMagnitudeConverter(Converter):
    """A sign bit and n_bits - 1 of magnitude: 2^(n_bits - 1) - 1 steps on either side of zero, whatever the range.

    Over a symmetric range these are the codes of `uniform`; over one from zero half of the codes are never used.
    """

    kind: ClassVar[str] = "sign_magnitude"

    def __post_init__(self) -> None:
        Converter.__post_init__(self)
        if self.n_bits < 2:
            raise SpecError(f"n_bits: {self.n_bits}: sign_magnitude needs 2 or more, one of them the sign")

    def ideal(self, low: float, high: float) -> Uniform:
        top = max(abs(low), abs(high))
        return Uniform(n_bits=self.n_bits, low=-top, high=top)

    def placed(self, low: float, high: float, *, normals: Values | None = None) -> Uniform:
        return self.ideal(low, high)


@dataclass(frozen=True, slots=True, kw_only=True)
class SarConverter(Converter):
    """Successive approximation with a binary-weighted array of unit capacitors, each with an independent relative error.

    Capacitor k is made of 2^k units, so its weight is (2^k + mismatch_rel sqrt(2^k) z_k) steps, and then all are scaled to sum to
    2^n_bits - 1: gain and offset are calibrated. To first order, at the middle of the scale, with a = 2^(n_bits - 1),

        INL std = mismatch_rel sqrt(a (a - 1)/(2 a - 1)),     DNL std = mismatch_rel sqrt(2^n_bits - 1) (about)      (5)

    as in M. Saberi et al., IEEE TCAS-I 58 (2011) 1736, there for the largest errors of a conventional binary-weighted array.
    """

    kind: ClassVar[str] = "sar"
    takes_normals: ClassVar[bool] = True
    mismatch_rel: float = field(metadata=about("Standard deviation of a unit capacitor, over its mean.", at_least=0.0))
    seed: int = field(default=0, metadata=about("Which converters of all that could have been made.", at_least=0))

    def normals_of(self, name: str) -> Values:
        """Return the normals of the converter of a name, `(n_bits,)`."""
        site = site_id(name, "capacitors", 0)
        return stream_normals(np.empty(self.n_bits, np.float32), seed=self.seed, site=site, trial=0).astype(np.float64)

    def ideal(self, low: float, high: float) -> Uniform:
        return Uniform(n_bits=self.n_bits, low=low, high=high)

    def placed(self, low: float, high: float, *, normals: Values | None = None) -> SignalOperator:
        """Return the chip whose capacitors are off by `normals`, smallest bit first; without mismatch, the uniform converter."""
        ideal = self.ideal(low, high)
        if self.mismatch_rel == 0.0:
            return ideal
        if normals is None or np.shape(normals) != (self.n_bits,):
            got = "none" if normals is None else f"shape {np.shape(normals)}"
            raise SpecError(f"normals: {got}: a sar converter with mismatch_rel needs {self.n_bits} of them, one for each bit")
        return mismatched(ideal, deviations_rel=self.mismatch_rel * np.asarray(normals, np.float64))


def mismatched(ideal: Uniform, *, deviations_rel: Values) -> SuccessiveApproximation:
    """Return a converter whose unit capacitors are off by `deviations_rel / sqrt(2^k)` on average in bit k, smallest first, `(n_bits,)`."""
    units = 2.0 ** np.arange(ideal.n_bits)
    weights = units + np.sqrt(units) * deviations_rel
    if np.any(weights <= 0.0):
        k = int(np.argmin(weights))
        raise SpecError(f"mismatch_rel: bit {k} would weigh {weights[k]:g} steps; no capacitor is negative, give a smaller mismatch_rel")
    weights *= units.sum() / weights.sum()
    levels = np.full(1, -np.inf)
    for weight in weights:
        levels = np.concatenate((np.minimum(weight, levels), weight + np.maximum(levels, 0.0)))
    offset, step, k_low, _ = ideal.grid
    transitions = offset + (k_low + levels[1 : ideal.n_codes] - 0.5) * step
    for array in (weights, transitions):
        array.setflags(write=False)
    return SuccessiveApproximation(ideal=ideal, weights=weights, transitions=transitions)


@dataclass(frozen=True, slots=True, kw_only=True)
class RampConverter(Converter):
    """A signal compared with a staircase ramp, one code a clock period: errs as `uniform`, takes 2^n_bits periods."""

    kind: ClassVar[str] = "ramp"
    clock_hz: float = field(metadata=about("Rate of the ramp's steps.", above=0.0))

    @property
    def conversion_s(self) -> float:
        """Time of a conversion: 2^n_bits periods."""
        return 2.0**self.n_bits / self.clock_hz

    def ideal(self, low: float, high: float) -> Uniform:
        return Uniform(n_bits=self.n_bits, low=low, high=high)

    def placed(self, low: float, high: float, *, normals: Values | None = None) -> Uniform:
        return self.ideal(low, high)


CONVERTERS: Mapping[str, type[Converter]] = {c.kind: c for c in (UniformConverter, SignMagnitudeConverter, SarConverter, RampConverter)}


# ranges


def range_from(
    samples: Values, converter: Converter, *, worst_case: tuple[float, float] | None = None, lattice: float | None = None
) -> tuple[float, float]:
    """Return the range, low and high, that a converter's `range` asks for, given calibration signals of any shape.

    Symmetric about zero when signals of both signs occur, else from zero to one side. `worst_case` is the least and the greatest
    signal that can occur: the range for `full`, by the same rule, and for signals that are all zero; `lattice` the step of a signal
    that has one, for `granular`.

    Raises
    ------
    SpecError
        No range of any width follows; the message has the lever.
    """
    x = np.ascontiguousarray(samples).reshape(-1)
    if not np.all(np.isfinite(x)):
        raise SpecError(f"samples: {np.count_nonzero(~np.isfinite(x))} of {x.size} calibration signals are not finite")
    if converter.range == "granular":
        return _granular(x, converter, worst_case, lattice)
    if converter.range == "full" or not np.any(x):
        return _worst(converter, worst_case, x)
    return _sided(_top(x, converter), float(x.min()), float(x.max()))


def _worst(converter: Converter, worst_case: tuple[float, float] | None, samples: Values) -> tuple[float, float]:
    if converter.range == "fixed" and converter.full_scale is not None:
        low, high = worst_case or (-1.0, 1.0)
        return _sided(converter.full_scale, low, high)
    if worst_case is None or not any(worst_case):
        why = "range = full needs worst_case" if converter.range == "full" else f"{samples.size} calibration signals, none but zero"
        raise SpecError(f"range: {converter.range}: {why}; give range = fixed and full_scale")
    return _sided(max(abs(v) for v in worst_case), *worst_case)


def _granular(samples: Values, converter: Converter, worst_case: tuple[float, float] | None, lattice: float | None) -> tuple[float, float]:
    if lattice is None or worst_case is None:
        raise SpecError("range: granular: the sums are not integers; give weights levels or slice_bits, and inputs a dac with slice_bits")
    low, high = _sided(1.0, min(float(samples.min()), *worst_case), max(float(samples.max()), *worst_case))
    top, steps = max(abs(v) for v in worst_case), 1
    while (end := steps * lattice / converter.ideal(low, high).step) < top * (1.0 - 1e-9):
        steps *= 2
    return low * end, high * end


def _sided(top: float, least: float, greatest: float) -> tuple[float, float]:
    return (-top if least < 0.0 else 0.0), (top if greatest > 0.0 else 0.0)


def _top(samples: Values, converter: Converter) -> float:
    if converter.range == "fixed" and converter.full_scale is not None:
        return converter.full_scale
    size = np.abs(samples)
    if converter.range == "percentile":
        top = float(np.percentile(size, converter.percentile or 100.0))
        if top == 0.0:
            raise SpecError(f"percentile: {converter.percentile}: as many calibration signals are zero; give a higher one, or range = max")
        return top
    return float(size.max()) if converter.range == "max" else _least_error_top(samples, converter)


def _least_error_top(samples: Values, converter: Converter) -> float:
    """Return the top, at most the largest magnitude, with the least mean squared error: by two grids, then golden sections.

    Errors of sums of digits have many minima over the top, where codes meet them; the finer grid finds which is deep.
    """
    least, greatest = float(samples.min()), float(samples.max())
    largest = max(-least, greatest)

    def error(log_top: float) -> float:
        return float(_squared_error(samples, converter.ideal(*_sided(largest * np.exp(log_top), least, greatest)).grid))

    a, b = float(np.log(SMALLEST_TOP)), 0.0
    for n in (N_TOPS, N_FINER):
        logs = np.linspace(a, b, n)
        best = int(np.argmin([error(v) for v in logs]))
        a, b = float(logs[max(best - 1, 0)]), float(logs[min(best + 1, n - 1)])
    c, d = b - GOLDEN * (b - a), a + GOLDEN * (b - a)
    at_c, at_d = error(c), error(d)
    for _ in range(N_GOLDEN):
        if at_c <= at_d:
            b, d, at_d = d, c, at_c
            c = b - GOLDEN * (b - a)
            at_c = error(c)
        else:
            a, c, at_c = c, d, at_d
            d = a + GOLDEN * (b - a)
            at_d = error(d)
    return largest * float(np.exp(c if at_c <= at_d else d))


def _check_bits(n_bits: int, most: int) -> None:
    if not 1 <= n_bits <= most:
        raise SpecError(f"n_bits: {n_bits}: need 1 to {most}; for a converter that errs by nothing, leave it out")


def _in_and_out(signal: Values) -> tuple[Values, Values]:
    x = np.ascontiguousarray(signal)
    if x.dtype not in (np.float32, np.float64):
        x = x.astype(np.float64)
    x = x.reshape(np.shape(signal))
    return x, np.empty(x.shape, x.dtype)


def _inside(signal: Values, low: float, high: float) -> Values:
    x = np.asarray(signal)
    kind = x.dtype if x.dtype in (np.float32, np.float64) else np.dtype(np.float64)
    return np.logical_and(x >= low, x <= high).astype(kind)


def _flat(mean: Values, variance: Values) -> tuple[Values, Values, Values]:
    m, v = np.broadcast_arrays(np.asarray(mean, np.float64), np.asarray(variance, np.float64))
    return np.ascontiguousarray(m).reshape(-1), np.ascontiguousarray(v).reshape(-1), np.empty((3, m.size))


def _typed(out: Values, mean: Values, variance: Values) -> tuple[Values, Values, Values]:
    """Return three arrays in the shape of mean and variance; float32 where both are."""
    kind = np.float32 if np.result_type(mean, variance) == np.float32 else np.float64
    shape = np.broadcast_shapes(np.shape(mean), np.shape(variance))
    first, second, gain = (row.astype(kind, copy=False).reshape(shape) for row in out)
    return first, second, gain
