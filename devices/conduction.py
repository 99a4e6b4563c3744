"""Non-linear conduction: the current through a cell is not in proportion to the voltage over it.

A law writes the current as a few functions of the stored conductance times functions of the voltage,

    I(G, v) = sum_k c_k(G) f_k(v),     c_1(G) = G,   f_k(-v) = -f_k(v)                                    (1)

so that an array of such cells is a sum of k products of matrices and vectors. With k = 1 the curve has the same shape at every state,
and all of it is a distortion of the inputs. Laws are smooth and rise with the voltage, which `devices.wires_nonlinear` needs.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from devices.base.errors import SpecError
from devices.base.toml_codec import about, check_types, raise_faults
from devices.law import ConductionLaw, Values

MOST_V0 = 60.0
"""Times v0 beyond which a current is no answer: 1e26 times the ohmic one."""
_MEASURED = about("Voltage at which a cell's conductance is its current over the voltage.", above=0.0, absent="small voltages")


@dataclass(frozen=True, slots=True, kw_only=True)
class SinhConduction(ConductionLaw):
    """Hopping and tunnelling: I = G v0 sinh(v / v0), over v0 sinh(m / v0) / m where the conductance was measured at m.

    The form of filament models of resistive memory (Guan, Yu, Wong, IEEE EDL 33 (2012) 1405; Jiang and Wong, Stanford RRAM model,
    nanoHUB 10.4231/D37H1DN48, where v0 is 0.25 V).
    """

    kind: ClassVar[str] = "sinh"
    v0_v: float = field(metadata=about("Voltage beyond which the current rises exponentially.", above=0.0))
    limit_v: float | None = field(default=None, metadata=about("Highest voltage that drivers give.", above=0.0, absent="any"))
    measured_at_v: float | None = field(default=None, metadata=_MEASURED)

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        if self.measured_at_v is not None and self.measured_at_v > 50.0 * self.v0_v:
            raise SpecError(f"measured_at_v: {self.measured_at_v:g} V: need at most 50 times v0_v, {self.v0_v:g} V; the current overflows")

    def _scale(self) -> float:
        """Return what the curve is divided by."""
        at = self.measured_at_v
        return 1.0 if at is None else float(np.sinh(at / self.v0_v) * self.v0_v / at)

    def shapes(self, voltage_v: Values) -> tuple[Values, ...]:
        largest = float(np.max(np.abs(voltage_v), initial=0.0))
        if largest > MOST_V0 * self.v0_v:
            raise SpecError(
                f"cell.conduction: rows would be driven with {largest:.3g} V, where sinh(v / {self.v0_v:g} V) is beyond any cell: inputs "
                "outside of the calibrated range grow from layer to layer; limit the drive by a [drive.dac] or cell.conduction.limit_v"
            )
        return (np.sinh(voltage_v / self.v0_v) * (self.v0_v / self._scale()),)

    def shape_slopes(self, voltage_v: Values) -> tuple[Values, ...]:
        return (np.cosh(voltage_v / self.v0_v) / self._scale(),)

    def terms(self, conductance_siemens: Values) -> tuple[Values, ...]:
        return (conductance_siemens,)

    def term_slopes(self, conductance_siemens: Values) -> tuple[Values, ...]:
        return (np.ones_like(conductance_siemens),)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolynomialConduction(ConductionLaw):
    """I = G (v + a_2 v |v| + a_3 v^3 + ...), the same shape at every state, in units of volts: a_k = coefficients[k - 2].

    Terms of even order are mirrored at zero, so that a cell does the same at both polarities.
    """

    kind: ClassVar[str] = "polynomial"
    coefficients: tuple[float, ...] = field(metadata=about("a_2, a_3, ...: of v^2, v^3, ... over v, in powers of 1 / V."))
    limit_v: float = field(metadata=about("Voltage up to which the polynomial holds.", above=0.0))
    measured_at_v: float | None = field(default=None, metadata=_MEASURED)

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        _check_rising(self.shape_slopes(np.linspace(0.0, self.limit_v, 257))[0], self.limit_v)

    def _scale(self) -> float:
        at = self.measured_at_v
        return 1.0 if at is None else float(np.polynomial.polynomial.polyval(at, [1.0, *self.coefficients]))

    def shapes(self, voltage_v: Values) -> tuple[Values, ...]:
        relative = np.polynomial.polynomial.polyval(np.abs(voltage_v), np.array([1.0, *self.coefficients]) / self._scale())
        return (voltage_v * relative.astype(np.result_type(voltage_v), copy=False),)

    def shape_slopes(self, voltage_v: Values) -> tuple[Values, ...]:
        order = np.arange(1.0, len(self.coefficients) + 2.0)
        slopes = np.polynomial.polynomial.polyval(np.abs(voltage_v), order * np.array([1.0, *self.coefficients]) / self._scale())
        return (slopes.astype(np.result_type(voltage_v), copy=False),)

    def terms(self, conductance_siemens: Values) -> tuple[Values, ...]:
        return (conductance_siemens,)

    def term_slopes(self, conductance_siemens: Values) -> tuple[Values, ...]:
        return (np.ones_like(conductance_siemens),)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDependentConduction(ConductionLaw):
    """I = G v + c_2(G) v |v| + c_3(G) v^3, where c_2 and c_3 are polynomials of log10(G / 1 S): the curve bends with the state.

    Fitted between `low_siemens` and `high_siemens`; beyond, c_k / G stays what it is at the end.
    """

    kind: ClassVar[str] = "by_state"
    quadratic: tuple[float, ...] = field(metadata=about("Coefficients of c_2 in A / V^2, of the powers 0, 1, ... of log10(G / 1 S)."))
    cubic: tuple[float, ...] = field(metadata=about("Coefficients of c_3 in A / V^3, of the powers 0, 1, ... of log10(G / 1 S)."))
    low_siemens: float = field(metadata=about("Lowest conductance that was fitted.", above=0.0))
    high_siemens: float = field(metadata=about("Highest conductance that was fitted.", above=0.0))
    limit_v: float = field(metadata=about("Voltage up to which the fit holds.", above=0.0))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        if not self.low_siemens < self.high_siemens:
            raise SpecError(f"need low_siemens < high_siemens, got {self.low_siemens:g} S and {self.high_siemens:g} S")
        g = np.linspace(self.low_siemens, self.high_siemens, 65)[:, None]
        v = np.linspace(0.0, self.limit_v, 65)
        _check_rising(self.slope_siemens(g, v) / g, self.limit_v)

    def shapes(self, voltage_v: Values) -> tuple[Values, ...]:
        return voltage_v, voltage_v * np.abs(voltage_v), voltage_v**3

    def shape_slopes(self, voltage_v: Values) -> tuple[Values, ...]:
        return np.ones_like(voltage_v), 2.0 * np.abs(voltage_v), 3.0 * voltage_v**2

    def terms(self, conductance_siemens: Values) -> tuple[Values, ...]:
        inside = np.clip(np.asarray(conductance_siemens, np.float64), self.low_siemens, self.high_siemens)
        kind = np.result_type(conductance_siemens)
        log, over = np.log10(inside), conductance_siemens / inside
        higher = (np.polynomial.polynomial.polyval(log, np.asarray(c)) * over for c in (self.quadratic, self.cubic))
        return (conductance_siemens, *(part.astype(kind, copy=False) for part in higher))

    def term_slopes(self, conductance_siemens: Values) -> tuple[Values, ...]:
        g = np.asarray(conductance_siemens, np.float64)
        inside = np.clip(g, self.low_siemens, self.high_siemens)
        log, within = np.log10(inside), inside == g
        higher = []
        for coefficients in (self.quadratic, self.cubic):
            c = np.asarray(coefficients)
            curved = np.polynomial.polynomial.polyval(log, np.polynomial.polynomial.polyder(c)) / (inside * np.log(10.0))
            higher.append(np.where(within, curved, np.polynomial.polynomial.polyval(log, c) / inside))
        return (np.ones_like(g), *higher)


def _check_rising(relative_slope: Values, limit_v: float) -> None:
    """Raise SpecError unless the current rises with the voltage."""
    least = float(np.min(relative_slope))
    if not least > 0.0:
        raise SpecError(
            f"the current falls with the voltage below limit_v, {limit_v:g} V (slope over G down to {least:g}); "
            "a cell that is read has to conduct more at more volts: check the signs and limit_v"
        )


CONDUCTION_LAWS: dict[str, type[ConductionLaw]] = {
    law.kind: law for law in (SinhConduction, PolynomialConduction, StateDependentConduction)
}
