"""Converters: numbers to voltages and currents to numbers, with a step, a range, and exact moments for Gaussian signals.

Codes are evenly spaced and zero is one of them (mid-tread): 0..2^n - 1 for signals of one sign, +-(2^(n-1) - 1) for signals of both,

    Q(x) = step * clip(round(x / step), k_low, k_high)                                                    (1)

For z ~ N(m, s^2), with thresholds t_i = (i + 1/2) step between codes i and i + 1, and k any code,

    E (Q/step - k)   = sum_{i >= k} P(z > t_i) - sum_{i < k} P(z < t_i)
    E (Q/step - k)^2 = sum_{i >= k} (2 (i - k) + 1) P(z > t_i) + sum_{i < k} (2 (k - 1 - i) + 1) P(z < t_i)          (2)
    gain = Cov(Q, z) / s^2 = step / s sum_i phi((m - t_i) / s)

Only thresholds within a few s of m matter. From s = step on the sums are integrals, up to about exp(-2 pi^2 s^2 / step^2) (Poisson), where
no end is near: E Q = m, Var Q = s^2 + step^2 / 12, gain = 1. A signal without spread is converted as it is: integers have no step^2 / 12.
"""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from scipy.optimize import minimize_scalar

from devices.base.errors import SpecError
from devices.base.jit import jit
from devices.base.stream import normals, site_id
from devices.base.toml_codec import about, check_types, raise_faults
from devices.converter_cost import COST_MODELS, ConverterCost
from devices.law import ConverterLaw, SignalOperator, Values

FAR = 8.0
"""Standard deviations beyond which a threshold is not crossed: 1e-15 of anything."""
MAX_BITS = 16
INV_SQRT_2, INV_SQRT_2PI = math.sqrt(0.5), 1.0 / math.sqrt(2.0 * math.pi)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedConverter(SignalOperator):
    """A converter whose range is known: codes `low_code..high_code`, each worth `step`.

    `thresholds` are where codes change, `(n_codes - 1,)`, in units of the signal; None where they are in the middle.
    """

    kind: ClassVar[str] = "converter"
    cause: ClassVar[str] = "converter"
    step: float
    low_code: int
    high_code: int
    thresholds: Values | None = None

    def value(self, signal: Values) -> Values:
        """Return (1), in the precision of the signal."""
        if self.thresholds is not None:
            codes = np.searchsorted(self.thresholds, signal.ravel(), side="right").reshape(signal.shape) + self.low_code
            return (self.step * codes).astype(signal.dtype)
        out = np.empty(signal.shape, signal.dtype)
        _fill_value(np.ascontiguousarray(signal).ravel(), signal.dtype.type(self.step), self.low_code, self.high_code, out.ravel())
        return out

    def slope(self, signal: Values) -> Values:
        """Return 1 within the range and 0 beyond it."""
        top, bottom = (self.high_code + 0.5) * self.step, (self.low_code - 0.5) * self.step
        return ((signal <= top) & (signal >= bottom)).astype(signal.dtype)

    def moments(self, mean: Values, variance: Values) -> tuple[Values, Values, Values]:
        """Return mean, variance and gain by (2), float64."""
        m, v = np.broadcast_arrays(np.asarray(mean, np.float64), np.asarray(variance, np.float64))
        found = np.empty((3, m.size))
        if self.thresholds is None:
            _fill_moments(m.ravel(), v.ravel(), self.step, self.low_code, self.high_code, found)
        else:
            _fill_moments_between(m.ravel(), v.ravel(), self.step, self.low_code, self.thresholds, found)
        still = v.ravel() <= 0.0
        if still.any():
            found[0, still], found[1, still], found[2, still] = self.value(m.ravel()[still]), 0.0, self.slope(m.ravel()[still])
        return found[0].reshape(m.shape), found[1].reshape(m.shape), found[2].reshape(m.shape)


@jit()
def _fill_value(signal: Any, step: Any, low: int, high: int, out: Any) -> None:
    inverse = 1.0 / step
    for i in range(signal.size):
        code = round(signal[i] * inverse)
        code = low if code < low else high if code > high else code
        out[i] = code * step


@jit()
def _fill_moments(mean: Any, variance: Any, step: float, low: int, high: int, found: Any) -> None:
    for n in range(mean.size):
        m, v = mean[n] / step, variance[n] / (step * step)
        if v <= 0.0:
            continue
        s = math.sqrt(v)
        if s >= 1.0 and m - FAR * s > low and m + FAR * s < high:
            found[0, n], found[1, n], found[2, n] = mean[n], variance[n] + step * step / 12.0, 1.0
            continue
        k = min(max(round(m), low), high)
        first, second, density = 0.0, 0.0, 0.0
        last = min(high, math.ceil(m + FAR * s))
        for i in range(k, last):
            a = (m - (i + 0.5)) / s
            p = 0.5 * math.erfc(-a * INV_SQRT_2)
            first += p
            second += (2 * (i - k) + 1) * p
            density += math.exp(-0.5 * a * a)
        start = max(low, math.floor(m - FAR * s) - 1)
        for i in range(start, k):
            a = (m - (i + 0.5)) / s
            p = 0.5 * math.erfc(a * INV_SQRT_2)
            first -= p
            second += (2 * (k - 1 - i) + 1) * p
            density += math.exp(-0.5 * a * a)
        found[0, n] = step * (k + first)
        found[1, n] = step * step * max(second - first * first, 0.0)
        found[2, n] = density * INV_SQRT_2PI / s


@jit()
def _fill_moments_between(mean: Any, variance: Any, step: float, low: int, thresholds: Any, found: Any) -> None:
    """The same for thresholds anywhere, rising."""
    for n in range(mean.size):
        m, v = mean[n], variance[n]
        if v <= 0.0:
            continue
        s = math.sqrt(v)
        start, stop = np.searchsorted(thresholds, m - FAR * s), np.searchsorted(thresholds, m + FAR * s)
        k = np.searchsorted(thresholds, m)
        first, second, density = 0.0, 0.0, 0.0
        for i in range(k, stop):
            a = (m - thresholds[i]) / s
            p = 0.5 * math.erfc(-a * INV_SQRT_2)
            first += p
            second += (2 * (i - k) + 1) * p
            density += math.exp(-0.5 * a * a)
        for i in range(start, k):
            a = (m - thresholds[i]) / s
            p = 0.5 * math.erfc(a * INV_SQRT_2)
            first -= p
            second += (2 * (k - 1 - i) + 1) * p
            density += math.exp(-0.5 * a * a)
        found[0, n] = step * (low + k + first)
        found[1, n] = step * step * max(second - first * first, 0.0)
        found[2, n] = step * density * INV_SQRT_2PI / s


_BITS = about("Bits of a code.", at_least=1)
_RANGE = about(
    "What the range is chosen by: the largest magnitude of calibration samples, a percentile of it, least squared error, what can occur "
    "at worst (full), the least power of two of integer steps that holds that (granular), or full_scale (fixed)."
)
_PERCENTILE = about("Percentile of the magnitudes that is the end of the range.", above=0.0)
_FULL_SCALE = about("End of a fixed range: of inputs in their own unit, of columns in cells all on.", above=0.0, absent="not fixed")
_COST = about("What a conversion takes.", absent="its energy, time and area are not known", kinds=lambda: dict(COST_MODELS))
Range = Literal["max", "percentile", "mse", "full", "granular", "fixed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Converter(ConverterLaw):
    """What a spec says of a converter; `placed` gives it a range."""

    kind: ClassVar[str]
    n_bits: int = field(metadata=_BITS)
    range: Range = field(default="max", metadata=_RANGE)
    percentile: float = field(default=99.9, metadata=_PERCENTILE)
    full_scale: float | None = field(default=None, metadata=_FULL_SCALE)
    cost: ConverterCost | None = field(default=None, metadata=_COST)

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        if self.n_bits > MAX_BITS or self.percentile > 100.0:
            raise SpecError(f"n_bits: {self.n_bits}, percentile: {self.percentile:g}: need at most {MAX_BITS} bits and at most 100")
        if (self.range == "fixed") != (self.full_scale is not None):
            raise SpecError(f"range: {self.range!r} with full_scale {self.full_scale}: a fixed range has a full_scale, and no other has")

    def codes(self, *, signed: bool) -> tuple[int, int]:
        """Return the lowest and highest code."""
        if not signed:
            return 0, 2**self.n_bits - 1
        if self.n_bits < 2:
            raise SpecError(f"n_bits: {self.n_bits}: signals of both signs need at least 2 bits")
        return -(2 ** (self.n_bits - 1) - 1), 2 ** (self.n_bits - 1) - 1

    def placed(self, low: float, high: float) -> PlacedConverter:
        """Return the converter for signals from `low` (0, or -high) to `high`."""
        low_code, high_code = self.codes(signed=low < 0.0)
        return PlacedConverter(step=high / high_code, low_code=low_code, high_code=high_code)


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformConverter(Converter):
    """Even steps (1)."""

    kind: ClassVar[str] = "uniform"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignMagnitudeConverter(Converter):
    """One bit for the sign, whatever the signals: even steps, as many on each side as the other bits allow."""

    kind: ClassVar[str] = "sign_magnitude"

    def codes(self, *, signed: bool) -> tuple[int, int]:
        low, high = Converter.codes(self, signed=True)
        return (low, high) if signed else (0, high)


@dataclass(frozen=True, slots=True, kw_only=True)
class RampConverter(Converter):
    """Compares with a ramp: even steps; a conversion takes as many clock periods as there are codes."""

    kind: ClassVar[str] = "ramp"


@dataclass(frozen=True, slots=True, kw_only=True)
class SarConverter(Converter):
    """Successive approximation with capacitors of 2^b units, each unit off by `mismatch_rel`: one converter, drawn from `seed`.

    Bit b weighs 2^b + mismatch_rel sqrt(2^b) z_b units; all are scaled so that the largest code keeps its place.
    """

    kind: ClassVar[str] = "sar"
    mismatch_rel: float = field(metadata=about("Standard deviation of a unit capacitor, over the unit.", at_least=0.0))
    seed: int = field(default=0, metadata=about("Which converter of all that could have been made.", at_least=0))

    def placed(self, low: float, high: float) -> PlacedConverter:
        """Return the converter with its thresholds: the code rises to i where the signal passes the weight of i less half a step."""
        even = Converter.placed(self, low, high)
        n_codes = even.high_code - even.low_code + 1
        n_bits = max(1, math.ceil(math.log2(n_codes)))
        z = normals(np.empty(n_bits, np.float32), seed=self.seed, site=site_id("converter", "sar", 0), trial=0).astype(np.float64)
        bits = 2.0 ** np.arange(n_bits)
        weights = bits + self.mismatch_rel * np.sqrt(bits) * z
        codes = np.arange(n_codes)
        held = ((codes[:, None] >> np.arange(n_bits)) & 1) @ weights
        held *= (n_codes - 1) / held[-1]
        rising = np.minimum.accumulate(held[::-1])[::-1]  # a greedy search never ends below a code whose weight a later one undercuts
        thresholds = (rising[1:] - 0.5 + even.low_code) * even.step
        return PlacedConverter(step=even.step, low_code=even.low_code, high_code=even.high_code, thresholds=thresholds)


CONVERTERS: dict[str, type[Converter]] = {
    law.kind: law for law in (UniformConverter, SignMagnitudeConverter, SarConverter, RampConverter)
}


def range_from(signal: Values, converter: Converter, *, worst_case: float, lattice: float | None = None) -> tuple[float, float]:
    """Return the range `(low, high)` that a converter's rule chooses for a signal: from 0 where no value is negative, else symmetric.

    `worst_case` is the largest magnitude that can occur; `lattice` the step of a signal that has one (integer sums of digits).
    """
    magnitudes = np.abs(signal)
    signed = bool(signal.min() < 0.0)
    rules = {
        "max": lambda: float(magnitudes.max()),
        "percentile": lambda: float(np.percentile(magnitudes, converter.percentile)),
        "full": lambda: worst_case,
        "fixed": lambda: converter.full_scale or 0.0,
        "mse": lambda: _least_squares(signal, converter, signed),
        "granular": lambda: _granular(converter, signed, worst_case, lattice),
    }
    high = float(rules[converter.range]())
    if not high > 0.0:
        high = worst_case if worst_case > 0.0 else 1.0
    return (-high if signed else 0.0), high


def _granular(converter: Converter, signed: bool, worst_case: float, lattice: float | None) -> float:
    if lattice is None:
        raise SpecError("range: 'granular' needs integer sums: give weights slice_bits (or levels), and inputs a dac with slice_bits")
    _, top = converter.codes(signed=signed)
    steps = 1
    while steps * lattice * top < worst_case * (1 - 1e-9):
        steps *= 2
    return steps * lattice * top


def _least_squares(signal: Values, converter: Converter, signed: bool) -> float:
    largest = float(np.abs(signal).max())
    if largest == 0.0:
        return 0.0

    def error(log_high: float) -> float:
        high = math.exp(log_high)
        return float(np.mean((converter.placed(-high if signed else 0.0, high).value(signal) - signal) ** 2))

    tried = np.log(largest) + np.linspace(-3.0, 0.0, 31)  # the error has many small dents: a grid first
    best = tried[int(np.argmin([error(t) for t in tried]))]
    found = minimize_scalar(error, bounds=(best - 0.1, min(best + 0.1, tried[-1])), method="bounded", options={"xatol": 1e-3})
    return math.exp(float(found.x) if found.fun < error(best) else float(best))
