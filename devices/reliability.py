"""Energy-reliability laws of memory: what energy a bit takes at what error rate.

    energy_rel = eta(p),   p = error rate of a bit at one read          (1)

Every law falls with p and says what its energy of 1 is (`energy_reference`): numbers under different references are never compared.
Published is the exponential p = exp(-a eta) of Hacene et al. and of Henwood, Leduc-Primeau and Savaria (arXiv 1912.10764).
Measured static memory follows another: each cell fails below a voltage of its own, which is Gaussian, and an access takes v^2:

    p = Phi((m - v)/s),   eta = v^2,   d eta/dp = -2 v s / phi((m - v)/s)                (2)
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from scipy.special import ndtr, ndtri

from devices.base.errors import SpecError
from devices.base.toml_codec import about, check_types, raise_faults
from devices.reliability_law import Floats, Rates, ReliabilityLaw, finite, like, refuse_outside
from devices.reliability_table import Tabulated

PUBLISHED_DECAY = 12.8
"""a of p = exp(-a eta): Henwood et al., arXiv 1912.10764; the default of their FaultyMemory library, `energy_consumption(a=12.8)`."""
_HENWOOD = "Henwood, Leduc-Primeau, Savaria, AICAS 2020, arXiv 1912.10764; after Hacene et al., arXiv 1911.10287; a as in FaultyMemory"
_FULL = "energy 1.0 is that of a bit at full energy"


def _check_decay(a: float) -> None:
    if np.exp(-a) >= 0.5 or a > MAX_DECAY:
        raise SpecError(f"a: {a:g}: need ln 2 < a <= {MAX_DECAY:g}, so that the error rate at full energy is below 1/2")


MAX_DECAY = 700.0
"""Beyond it exp(-a) is no float."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exponential(ReliabilityLaw):
    """p = exp(-a eta) for error rates from exp(-a), full energy, to 1/2; others are refused."""

    kind: ClassVar[str] = "exponential"
    a: float = field(default=PUBLISHED_DECAY, metadata=about("Decay of the error rate's logarithm over full energy.", above=0.0))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        _check_decay(self.a)

    @property
    def energy_reference(self) -> str:
        return f"{_FULL}, where its error rate is exp(-a) = {np.exp(-self.a):.3g}"

    @property
    def source(self) -> str:
        return _HENWOOD

    @property
    def bounds(self) -> tuple[float, float]:
        return float(np.exp(-self.a)), 0.5

    def _energy(self, error_rate: Floats) -> Floats:
        return -np.log(error_rate) / self.a

    def _rate(self, energy_rel: Floats) -> Floats:
        return np.exp(-self.a * energy_rel)

    def _slope(self, error_rate: Floats) -> Floats:
        return -1.0 / (self.a * error_rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentialPublished(ReliabilityLaw):
    """p = exp(-a eta) as published, with its jumps: eta is 1 below p = exp(-a), at p = 0 too, and 0 from p = 1/2 on.

    Any error rate from 0 to 1 has an energy; between 0 and ln 2/a no error rate takes that energy, and `error_rate` gives 1/2 there.
    """

    kind: ClassVar[str] = "exponential_published"
    a: float = field(default=PUBLISHED_DECAY, metadata=about("Decay of the error rate's logarithm over full energy.", above=0.0))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        _check_decay(self.a)

    @property
    def energy_reference(self) -> str:
        return f"{_FULL}, where it is taken as free of errors"

    @property
    def source(self) -> str:
        return _HENWOOD

    @property
    def bounds(self) -> tuple[float, float]:
        """Where the jumps are: the law is smooth between, constant beyond."""
        return float(np.exp(-self.a)), 0.5

    @property
    def energy_bounds(self) -> tuple[float, float]:
        return 0.0, 1.0

    def _within(self, error_rate: float | Floats) -> Floats:
        rates = finite("error_rate", error_rate)
        refuse_outside("error_rate", rates, 0.0, 1.0, "of a probability")
        return rates

    def error_rate(self, energy_rel: Rates) -> Rates:
        """Return the least error rate that the energy buys: 0 at 1, 1/2 at ln 2/a and below."""
        energies = finite("energy_rel", energy_rel)
        refuse_outside("energy_rel", energies, *self.energy_bounds, f"of {self.kind}")
        return like(energy_rel, np.asarray(self._rate(energies)))

    def _energy(self, error_rate: Floats) -> Floats:
        smooth = np.clip(error_rate, *self.bounds)
        return np.where(error_rate >= 0.5, 0.0, -np.log(smooth) / self.a)

    def _rate(self, energy_rel: Floats) -> Floats:
        return np.where(energy_rel >= 1.0, 0.0, np.minimum(np.exp(-self.a * energy_rel), 0.5))

    def _slope(self, error_rate: Floats) -> Floats:
        """Return the derivative between the jumps, and 0 beyond, where the law is constant."""
        least, largest = self.bounds
        flat = (error_rate < least) | (error_rate >= largest)
        return np.where(flat, 0.0, -1.0 / (self.a * np.clip(error_rate, least, largest)))


class CellThreshold(ReliabilityLaw):
    """Cells that each fail below a Gaussian voltage, and accesses that take v^2: (2)."""

    __slots__ = ()

    @property
    @abstractmethod
    def threshold(self) -> tuple[float, float]:
        """Mean and standard deviation of a cell's least voltage, over the reference voltage."""

    @property
    def bounds(self) -> tuple[float, float]:
        """From the error rate at the reference voltage, to 1/2 at the mean threshold."""
        mean, std = self.threshold
        return float(ndtr((mean - 1.0) / std)), 0.5

    def v_rel(self, error_rate: Rates) -> Rates:
        """Return v = m - s Phi^-1(p), over the reference voltage."""
        return like(error_rate, self._v(self._within(error_rate)))

    def error_rate_at(self, v_rel: Rates) -> Rates:
        """Return p = Phi((m - v)/s)."""
        mean, std = self.threshold
        volts = finite("v_rel", v_rel)
        refuse_outside("v_rel", volts, mean, 1.0, f"of {self.kind}")
        return like(v_rel, np.clip(ndtr((mean - volts) / std), *self.bounds))

    def _v(self, error_rate: Floats) -> Floats:
        mean, std = self.threshold
        return mean - std * ndtri(error_rate)

    def _energy(self, error_rate: Floats) -> Floats:
        return self._v(error_rate) ** 2

    def _rate(self, energy_rel: Floats) -> Floats:
        mean, std = self.threshold
        return ndtr((mean - np.sqrt(energy_rel)) / std)

    def _slope(self, error_rate: Floats) -> Floats:
        z = ndtri(error_rate)
        density = np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)
        return -2.0 * self._v(error_rate) * self.threshold[1] / density


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianThreshold(CellThreshold):
    """Static memory whose cells fail below a Gaussian voltage: the user's own mean and deviation."""

    kind: ClassVar[str] = "gaussian_threshold"
    threshold_mean_rel: float = field(metadata=about("Mean of a cell's least voltage, over the reference voltage.", above=0.0))
    threshold_std_rel: float = field(metadata=about("Standard deviation of it, over the reference voltage.", above=0.0))
    energy_reference: str = field(metadata=about("What an energy of 1 is, as a sentence: at which voltage."))
    source: str = field(metadata=about("Where the numbers are from."))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        if not self.threshold_mean_rel < 1.0 or ndtr((self.threshold_mean_rel - 1.0) / self.threshold_std_rel) <= 0.0:
            raise SpecError(
                f"threshold_mean_rel: {self.threshold_mean_rel:g}: need it below 1, the reference voltage, and by less than "
                f"37 times threshold_std_rel, {self.threshold_std_rel:g}"
            )

    @property
    def threshold(self) -> tuple[float, float]:
        return self.threshold_mean_rel, self.threshold_std_rel


MEASURED_14NM = ((23 / 24, 1.91e-6), (22 / 24, 6.86e-5), (21 / 24, 1.29e-3), (20 / 24, 1.11e-2), (19 / 24, 5.57e-2), (18 / 24, 2.06e-1))
"""(V/Vmin, bit error rate) of 14 nm arrays: the points of the figure that `figure` is fitted to; none was seen at V/Vmin = 1."""
_FITS_14NM = {"figure": (12.779 / 18.111, 1.0 / 18.111), "poster": (0.710, 0.0575)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sram14nm(CellThreshold):
    """Measured 14 nm static memory, 32 arrays of 512 x 64 bits; two fits of (2), of two readings of the same measurement.

    `figure`, the default: Phi(12.779 - 18.111 v), of the points of the vector figure; within a factor 1.24 of each of them.
    `poster`: m = 0.710, s = 0.0575, of points read off the authors' poster; within a factor 1.7 of those, 4.2 of the figure's.
    Between 1.9e-6 and 0.21 the law is measured; down to its value at v = 1 and up to 1/2 it is extrapolated.
    """

    kind: ClassVar[str] = "sram_14nm"
    fit: Literal["figure", "poster"] = field(default="figure", metadata=about("Which reading of the measurement the fit is of."))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))

    @property
    def energy_reference(self) -> str:
        return "energy 1.0 is that of an access at Vmin, the lowest voltage at which no error was measured"

    @property
    def source(self) -> str:
        where = {"figure": "as drawn in Stutz et al., MLSys 2021, c10_intro2.pdf", "poster": "as on the poster of Stutz et al., MLSys 2021"}
        return f"14 nm arrays of Chandramoorthy et al., HPCA 2019, {where[self.fit]}; probit fit"

    @property
    def threshold(self) -> tuple[float, float]:
        return _FITS_14NM[self.fit]


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint(ReliabilityLaw):
    """A memory at its published operating point: one error rate, energy 1."""

    kind: ClassVar[str] = "fixed_point"
    error_rate_p: float = field(metadata=about("Error rate of a bit.", at_least=0.0))
    energy_reference: str = field(metadata=about("What an energy of 1 is, as a sentence: at which operating point."))
    source: str = field(metadata=about("Where the error rate is from."))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        if self.error_rate_p > 0.5:
            raise SpecError(f"error_rate_p: {self.error_rate_p:g}: need at most 0.5")

    @property
    def bounds(self) -> tuple[float, float]:
        return self.error_rate_p, self.error_rate_p

    def _energy(self, error_rate: Floats) -> Floats:
        return np.ones_like(error_rate)

    def _rate(self, energy_rel: Floats) -> Floats:
        return np.full_like(energy_rel, self.error_rate_p)

    def _slope(self, error_rate: Floats) -> Floats:
        """Refuse: nothing can be traded at one point."""
        raise SpecError("slope: a fixed_point law has one error rate and one energy; nothing can be traded, use another law")


RELIABILITY_LAWS: dict[str, type[ReliabilityLaw]] = {
    law.kind: law for law in (ExponentialPublished, Exponential, Sram14nm, GaussianThreshold, Tabulated, FixedPoint)
}
