"""The four kinds of law a component is made of, their scopes, and what an action costs.

    cell law         acts on stored values          mean and variance of the stored value, and how to sample it
    array map        acts on a whole array          stored conductances -> effective conductances
    signal operator  acts on values on their way    converters, clipping
    read law         acts at each read              variance given the signal and the stored value

and what a read is made of, a conduction law: the current for a stored value and a voltage, in proportion to both where a cell has none.

Every law is a frozen record of SI floats; it knows no network. Randomness enters as draws: a law transforms what it is given.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from devices.base.errors import SpecError

Values: TypeAlias = NDArray[np.floating]
Scope: TypeAlias = Literal["chip", "programming", "inference", "read"]
MAX_ERROR_REL = 1e3
"""No device errs by more than this many times what it stores; squares beyond it would overflow."""


def check_error_rel(value: float) -> None:
    """Raise SpecError unless a relative error is a standard deviation that makes sense."""
    if not 0.0 <= value <= MAX_ERROR_REL:
        raise SpecError(
            f"need 0 <= error_rel, got {value:g}; it is a standard deviation over a conductance, e.g. 0.01, and at most {MAX_ERROR_REL:g}"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CellMoments:
    """Mean and variance of the stored value, siemens and siemens squared, in the shape of the target."""

    mean_siemens: Values
    variance_siemens2: Values


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CellEvents:
    """Rare replacements of the stored value: with probability `p` a cell holds `value_siemens` instead (sparse laws)."""

    p: Values
    value_siemens: Values


class CellLaw(ABC):
    """What becomes of a value that is stored, one cell at a time."""

    __slots__ = ()
    kind: ClassVar[str]
    cause: ClassVar[str]
    scope: ClassVar[Scope]

    @abstractmethod
    def moments(self, target_siemens: Values, g_max_siemens: float) -> CellMoments:
        """Return the mean and variance of the stored value for each target."""

    @abstractmethod
    def sample(self, target_siemens: Values, g_max_siemens: float, *, normals: Values) -> Values:
        """Return stored values for targets and independent standard normals of the same shape."""

    @abstractmethod
    def precompensated(self, target_siemens: Values, g_max_siemens: float) -> Values:
        """Return the target to ask for, so that a differential pair's mean is what was wanted."""

    @abstractmethod
    def scales_with(self) -> Literal["nothing", "target", "state"]:
        """Return what the standard deviation goes with: nothing (a constant), the target, in proportion, or the state in another way."""

    def moments_after(self, before: CellMoments, g_max_siemens: float, *, asked_siemens: Values) -> CellMoments:
        """Return the moments for stored values that are random themselves, of known mean and variance; `asked_siemens` were asked for.

        By Gauss and Hermite's quadrature over Gaussian values, those below zero being zero; a law that knows better says so.
        """
        return _by_quadrature(self, before, g_max_siemens)

    def sample_after(self, stored_siemens: Values, g_max_siemens: float, *, asked_siemens: Values, normals: Values) -> Values:
        """Return what becomes of stored values; by default as of targets, those of laws by state being at least zero."""
        targets = stored_siemens if self.scales_with() == "nothing" else np.maximum(stored_siemens, 0.0)
        return self.sample(targets, g_max_siemens, normals=normals)

    def events(self, target_siemens: Values) -> CellEvents | None:
        """Return the law's sparse events, or None for a dense law, whose two moments carry it."""
        return None


class ArrayMap(ABC):
    """What an array's wiring makes of its stored conductances."""

    __slots__ = ()

    @abstractmethod
    def apply(self, conductance_siemens: Values) -> Values:
        """Return the effective conductances, `(n_rows, n_columns)`."""

    @abstractmethod
    def vjp(self, conductance_siemens: Values, delta: Values) -> Values:
        """Return the transposed derivative of `apply` at these conductances, applied to `delta`."""

    @abstractmethod
    def gain(self, conductance_siemens: Values) -> Values:
        """Return by how much a small error of each cell counts in what its column sees of it."""


@dataclass(frozen=True, slots=True)
class IdealWires(ArrayMap):
    """No wire resistance: every cell sees the full voltage."""

    def apply(self, conductance_siemens: Values) -> Values:
        return conductance_siemens

    def vjp(self, conductance_siemens: Values, delta: Values) -> Values:
        return delta

    def gain(self, conductance_siemens: Values) -> Values:
        return np.ones_like(conductance_siemens)


class SignalOperator(ABC):
    """What happens to a value on its way: conversion, clipping. Same interface as an activation's."""

    __slots__ = ()
    kind: ClassVar[str]
    cause: ClassVar[str]

    @abstractmethod
    def value(self, signal: Values) -> Values:
        """Return the signal after the operator."""

    @abstractmethod
    def slope(self, signal: Values) -> Values:
        """Return the derivative that small errors see."""

    @abstractmethod
    def moments(self, mean: Values, variance: Values) -> tuple[Values, Values, Values]:
        """Return mean, variance and Stein gain of the output for a Gaussian signal."""


class ConverterLaw(ABC):
    """A converter as a spec describes it, before its range is known."""

    __slots__ = ()
    kind: ClassVar[str]
    n_bits: int

    @abstractmethod
    def placed(self, low: float, high: float, *, normals: Values | None = None) -> SignalOperator:
        """Return the converter for signals from `low` to `high`; `normals` where converters differ from one to the next."""


class ReadLaw(ABC):
    """Noise that is fresh at every read."""

    __slots__ = ()
    kind: ClassVar[str]
    cause: ClassVar[str]
    scope: ClassVar[Scope] = "read"

    @abstractmethod
    def scaled(self, factor: float) -> Self:
        """Return the law with standard deviations `factor` times as large."""

    @abstractmethod
    def variance_siemens2(self, stored_siemens: Values, g_max_siemens: float) -> Values:
        """Return the variance of the conductance seen by one read."""

    def mean_variance_siemens2(self, mean_siemens: Values, variance_siemens2: Values, g_max_siemens: float) -> Values:
        """Return E v(G) over stored values of known mean and variance.

        By default that at the root of E G^2: exact for laws a + b G^2, which others replace.
        """
        return self.variance_siemens2(np.sqrt(mean_siemens**2 + variance_siemens2), g_max_siemens)


class ConductionLaw(ABC):
    """A cell's current over its voltage, I(G, v) = sum_k c_k(G) f_k(v) with c_1(G) = G; odd and rising in v."""

    __slots__ = ()
    kind: ClassVar[str]
    cause: ClassVar[str] = "conduction"

    @abstractmethod
    def terms(self, conductance_siemens: Values) -> tuple[Values, ...]:
        """Return every c_k, in the shape of the conductances."""

    @abstractmethod
    def term_slopes(self, conductance_siemens: Values) -> tuple[Values, ...]:
        """Return every dc_k/dG."""

    @abstractmethod
    def shapes(self, voltage_v: Values) -> tuple[Values, ...]:
        """Return every f_k, in the shape of the voltages."""

    @abstractmethod
    def shape_slopes(self, voltage_v: Values) -> tuple[Values, ...]:
        """Return every df_k/dv."""

    def current_a(self, conductance_siemens: Values, voltage_v: Values) -> Values:
        """Return I(G, v), broadcast."""
        return np.asarray(sum(c * f for c, f in zip(self.terms(conductance_siemens), self.shapes(voltage_v), strict=True)))

    def slope_siemens(self, conductance_siemens: Values, voltage_v: Values) -> Values:
        """Return dI/dv, broadcast."""
        return np.asarray(sum(c * f for c, f in zip(self.terms(conductance_siemens), self.shape_slopes(voltage_v), strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one action takes: energy, time, and for how long the component is occupied."""

    energy_j: float = 0.0
    time_s: float = 0.0
    occupancy_s: float = 0.0


class Component(ABC):
    """A part with a chain of laws and a price: error and cost come from the same object, so they cannot drift apart."""

    __slots__ = ()

    @abstractmethod
    def cost(self, action: str, **statistics: float) -> Cost:
        """Return the cost of one action, given statistics of the data it works on."""

    @property
    def leakage_w(self) -> float:
        """Power while nothing happens."""
        return 0.0

    @property
    def area_m2(self) -> float:
        """Area on the die."""
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadCell(Component):
    """A resistive cell as a consumer: reading conductance G at voltage v for a time t takes `G v^2 t`."""

    t_read_s: float

    def cost(self, action: str, **statistics: float) -> Cost:
        """Return the cost of `read`, given `conductance_siemens` and `v2_v2` (mean squared voltage)."""
        if action != "read":
            raise ValueError(f"a cell knows the action 'read', not {action!r}")
        power_w = statistics["conductance_siemens"] * statistics["v2_v2"]
        return Cost(energy_j=power_w * self.t_read_s, time_s=self.t_read_s, occupancy_s=self.t_read_s)


@dataclass(frozen=True, slots=True)
class CellChain:
    """Cell laws one after the other: the stored value of the first is the target of the next.

        E G2 = E m2(G1),   Var G2 = E v2(G1) + Var m2(G1)        total variance, by Gauss-Hermite over G1      (1)
    """

    laws: tuple[CellLaw, ...]

    def moments(self, target_siemens: Values, g_max_siemens: float) -> CellMoments:
        """Return the moments of the whole chain.

        Exact for one law, and for laws that are independent of what is stored (`moments_after`); a second law of another kind is averaged
        over the normal of the first, so that clipped values are too; further ones by (1) with Gaussian intermediate values.
        """
        moments = CellMoments(mean_siemens=target_siemens, variance_siemens2=np.zeros_like(target_siemens))
        for i, law in enumerate(self.laws):
            if not np.any(moments.variance_siemens2):
                moments = law.moments(moments.mean_siemens, g_max_siemens)
            elif i == 1 and type(law).moments_after is CellLaw.moments_after:
                moments = _over_the_normal_of(self.laws[0], law, target_siemens, g_max_siemens)
            else:
                moments = law.moments_after(moments, g_max_siemens, asked_siemens=target_siemens)
        return moments

    def sample(self, target_siemens: Values, g_max_siemens: float, *, normals: tuple[Values, ...]) -> Values:
        """Return stored values; one array of normals a law."""
        value = target_siemens
        for i, (law, draws) in enumerate(zip(self.laws, normals, strict=True)):
            if i == 0:
                value = law.sample(value, g_max_siemens, normals=draws)
            else:
                value = law.sample_after(value, g_max_siemens, asked_siemens=target_siemens, normals=draws)
        return value


def _over_the_normal_of(first: CellLaw, second: CellLaw, target: Values, g_max_siemens: float) -> CellMoments:
    """Average over the first law's normal z, by Gauss and Legendre's quadrature on both sides of where it stores zero."""
    nodes, weights = np.polynomial.legendre.leggauss(2 * N_NODES)
    mean = np.zeros(np.shape(target))
    second_moment = np.zeros_like(mean)
    low, high = (first.sample(target, g_max_siemens, normals=np.full(np.shape(target), z)) for z in (FAR, FAR + 1.0))
    std = high - low  # far above, where nothing is clipped: what one normal more adds
    kink = np.clip(np.divide(FAR * std - low, std, out=np.zeros_like(mean), where=std > 0.0), -FAR, FAR)
    for start, stop in ((-FAR, kink), (kink, FAR)):
        for node, weight in zip(nodes, weights):
            z = np.asarray(0.5 * (stop - start) * (node + 1.0) + start)
            weighed = 0.5 * (stop - start) * weight * np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)
            stored = first.sample(target, g_max_siemens, normals=z)
            step = second.moments(stored if second.scales_with() == "nothing" else np.maximum(stored, 0.0), g_max_siemens)
            mean += weighed * step.mean_siemens
            second_moment += weighed * (step.variance_siemens2 + step.mean_siemens**2)
    return CellMoments(mean_siemens=mean, variance_siemens2=np.maximum(second_moment - mean**2, 0.0))


FAR = 8.5
"""Normals beyond which there is 1e-17 of anything."""


N_NODES = 16


def _by_quadrature(law: CellLaw, before: CellMoments, g_max_siemens: float) -> CellMoments:
    nodes, weights = np.polynomial.hermite_e.hermegauss(N_NODES)
    weights = weights / weights.sum()
    std = np.sqrt(before.variance_siemens2)
    mean = np.zeros_like(before.mean_siemens)
    second = np.zeros_like(mean)
    for node, weight in zip(nodes, weights):
        step = law.moments(np.maximum(before.mean_siemens + node * std, 0.0), g_max_siemens)
        mean += weight * step.mean_siemens
        second += weight * (step.variance_siemens2 + step.mean_siemens**2)
    return CellMoments(mean_siemens=mean, variance_siemens2=np.maximum(second - mean**2, 0.0))

