"""Drift: a conductance falls with time as G(t) = G ((t + t0) / t0)^-nu, each cell with an exponent of its own, nu = |N(mean, std)|.

With L = ln((t + t0) / t0), the factor F = exp(-L nu) of a folded normal exponent has the moments

    E F^k = exp(-k mu L + (k sigma L)^2 / 2) Phi(mu/sigma - k sigma L)
          + exp(+k mu L + (k sigma L)^2 / 2) Phi(-mu/sigma - k sigma L)                                      (1)

The exponent goes with the state that was asked for, as in the published laws; so F is independent of what was stored, and
E G(t) = E F E G and E G(t)^2 = E F^2 E G^2, whatever the law of G.
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from scipy.special import ndtr

from devices.base.quantity import format_quantity
from devices.base.toml_codec import about, check_types, raise_faults
from devices.law import CellLaw, CellMoments, Scope, Values
from devices.piecewise import LogThenPolynomial

N_BISECTIONS = 60
SMALLEST_STATE = 1e-9
"""Over the range: what the logarithm of a state is taken of at least; fits hold their exponents constant long before."""
_T = about("Time since programming.", at_least=0.0)
_T0 = about("Time at which programmed conductances were measured, as in the law.", above=0.0)


class PowerLaw(CellLaw):
    """Drift whose exponent has a mean and a standard deviation by state."""

    __slots__ = ()
    cause: ClassVar[str] = "drift"
    scope: ClassVar[Scope] = "programming"
    t_s: float
    t0_s: float

    @abstractmethod
    def exponent(self, asked_siemens: Values) -> tuple[Values | float, Values | float]:
        """Return mean and standard deviation of the normal whose absolute value is the exponent."""

    @property
    def log_time(self) -> float:
        """L = ln((t + t0) / t0)."""
        return float(np.log1p(self.t_s / self.t0_s))

    def in_words(self) -> str:
        """Return what the law means at its time."""
        if self.t_s == 0.0:
            return "no drift: cell.drift.t_s is 0"
        left = float(self.factors(np.full(1, np.inf))[0][0])
        age = format_quantity(self.t_s, "second", n_digits=4)
        return f"{age} after programming; a cell at the top has {100 * left:.3g} % left on average"

    def factors(self, asked_siemens: Values) -> tuple[Values, Values]:
        """Return E F and E F^2 by (1), in the shape of the states."""
        mean, std = (np.broadcast_to(np.asarray(v, np.float64), np.shape(asked_siemens)) for v in self.exponent(asked_siemens))
        return _folded(mean, std, self.log_time), _folded(mean, std, 2.0 * self.log_time)

    def moments(self, target_siemens: Values, g_max_siemens: float) -> CellMoments:
        fixed = CellMoments(mean_siemens=target_siemens, variance_siemens2=np.zeros_like(target_siemens))
        return self.moments_after(fixed, g_max_siemens, asked_siemens=target_siemens)

    def moments_after(self, before: CellMoments, g_max_siemens: float, *, asked_siemens: Values) -> CellMoments:
        """Return the moments after drift: exact, the factor being independent of what was stored."""
        first, second = self.factors(asked_siemens)
        spread = np.where(self.exponent(asked_siemens)[1] == np.zeros(1), 0.0, np.maximum(second - first**2, 0.0))
        square = before.variance_siemens2 + before.mean_siemens**2
        variance = spread * square + first**2 * before.variance_siemens2
        return CellMoments(mean_siemens=first * before.mean_siemens, variance_siemens2=variance)

    def sample(self, target_siemens: Values, g_max_siemens: float, *, normals: Values) -> Values:
        return self.sample_after(target_siemens, g_max_siemens, asked_siemens=target_siemens, normals=normals)

    def sample_after(self, stored_siemens: Values, g_max_siemens: float, *, asked_siemens: Values, normals: Values) -> Values:
        mean, std = self.exponent(asked_siemens)
        kind = normals.dtype
        exponent = np.abs(np.asarray(mean, kind) + np.asarray(std, kind) * normals)
        return np.asarray(stored_siemens, kind) * np.exp(kind.type(-self.log_time) * exponent)

    def precompensated(self, target_siemens: Values, g_max_siemens: float) -> Values:
        """Return g' with E F(g') g' = g, by bisection."""
        low = np.zeros_like(target_siemens)
        high = target_siemens / np.maximum(self.factors(np.zeros_like(target_siemens))[0], 1e-6)
        for _ in range(N_BISECTIONS):
            middle = 0.5 * (low + high)
            short = self.factors(middle)[0] * middle < target_siemens
            low, high = np.where(short, middle, low), np.where(short, high, middle)
        return high


def _folded(mean: Values, std: Values, log_time: float) -> Values:
    """Return E exp(-log_time |N(mean, std)|)."""
    spread = std * log_time
    ratio = np.divide(mean, std, out=np.full_like(mean, np.inf), where=std > 0.0)
    near = np.exp(-mean * log_time + 0.5 * spread**2) * ndtr(ratio - spread)
    folded = np.exp(np.minimum(mean * log_time + 0.5 * spread**2, 700.0)) * ndtr(-ratio - spread)
    return np.asarray(near + folded)


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLawDrift(PowerLaw):
    """The same law of the exponent at every state."""

    kind: ClassVar[str] = "power_law"
    nu_mean: float = field(metadata=about("Mean of the exponent.", at_least=0.0))
    nu_std: float = field(default=0.0, metadata=about("Standard deviation of the exponent from cell to cell.", at_least=0.0))
    t0_s: float = field(metadata=_T0)
    t_s: float = field(default=0.0, metadata=_T)

    def __post_init__(self) -> None:
        raise_faults(check_types(self))

    def exponent(self, asked_siemens: Values) -> tuple[float, float]:
        return self.nu_mean, self.nu_std

    def scales_with(self) -> Literal["target"]:
        return "target"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogarithmicDrift(PowerLaw):
    """An exponent that falls with the logarithm of the state, held within limits: `slope ln(G / over) + offset`, mean and deviation."""

    kind: ClassVar[str] = "logarithmic"
    over_siemens: float = field(metadata=about("Conductance that the logarithm's argument is over.", above=0.0))
    mean_slope: float = field(metadata=about("Of the mean exponent."))
    mean_offset: float = field(metadata=about("Of the mean exponent."))
    mean_low: float = field(metadata=about("Least mean exponent.", at_least=0.0))
    mean_high: float = field(metadata=about("Greatest mean exponent.", at_least=0.0))
    std_slope: float = field(metadata=about("Of the exponent's standard deviation."))
    std_offset: float = field(metadata=about("Of the exponent's standard deviation."))
    std_low: float = field(metadata=about("Least standard deviation.", at_least=0.0))
    std_high: float = field(metadata=about("Greatest standard deviation.", at_least=0.0))
    t0_s: float = field(metadata=_T0)
    t_s: float = field(default=0.0, metadata=_T)

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        raise_faults([
            f"{part}_low: {low:g}: need at most {part}_high, {high:g}"
            for part, low, high in (("mean", self.mean_low, self.mean_high), ("std", self.std_low, self.std_high))
            if low > high
        ])  # fmt: skip

    def exponent(self, asked_siemens: Values) -> tuple[Values, Values]:
        log = np.log(np.maximum(np.asarray(asked_siemens, np.float64) / self.over_siemens, SMALLEST_STATE))
        mean = np.clip(self.mean_slope * log + self.mean_offset, self.mean_low, self.mean_high)
        return mean, np.clip(self.std_slope * log + self.std_offset, self.std_low, self.std_high)

    def scales_with(self) -> Literal["state"]:
        return "state"


@dataclass(frozen=True, slots=True, kw_only=True)
class PiecewiseDrift(PowerLaw):
    """An exponent whose mean and standard deviation are functions of the state in two pieces."""

    kind: ClassVar[str] = "piecewise"
    over_siemens: float = field(metadata=about("Conductance that the state is over.", above=0.0))
    mean: LogThenPolynomial = field(metadata=about("Mean exponent by state."))
    std: LogThenPolynomial = field(metadata=about("The exponent's standard deviation by state."))
    t0_s: float = field(metadata=_T0)
    t_s: float = field(default=0.0, metadata=_T)

    def __post_init__(self) -> None:
        raise_faults(check_types(self))

    def exponent(self, asked_siemens: Values) -> tuple[Values, Values]:
        state = np.asarray(asked_siemens, np.float64) / self.over_siemens
        return self.mean.at(state), self.std.at(state)

    def scales_with(self) -> Literal["state"]:
        return "state"


DRIFT_LAWS: dict[str, type[PowerLaw]] = {law.kind: law for law in (PowerLawDrift, LogarithmicDrift, PiecewiseDrift)}
