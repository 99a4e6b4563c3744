"""What every energy-reliability law of memory answers, and that energies of different references are never mixed."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from devices.base.errors import SpecError

Floats: TypeAlias = NDArray[np.float64]
Rates = TypeVar("Rates", float, Floats)


class ReliabilityLaw(ABC):
    """What energy a bit takes at what error rate. Arguments are floats or arrays; what is returned has their shape."""

    __slots__ = ()
    kind: ClassVar[str]

    @property
    @abstractmethod
    def energy_reference(self) -> str:
        """What an energy of 1 is, as a sentence."""

    @property
    @abstractmethod
    def source(self) -> str:
        """Where the law and its numbers are from."""

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float]:
        """Least and largest error rate of the law's smooth part. Outside it is refused, unless the law says otherwise."""

    @abstractmethod
    def _energy(self, error_rate: Floats) -> Floats:
        """Return eta for error rates within the bounds."""

    @abstractmethod
    def _rate(self, energy_rel: Floats) -> Floats:
        """Return p for energies within the bounds."""

    @abstractmethod
    def _slope(self, error_rate: Floats) -> Floats:
        """Return d eta/dp for error rates within the bounds."""

    def energy_rel(self, error_rate: Rates) -> Rates:
        """Return eta(p); SpecError outside of `bounds`."""
        return like(error_rate, self._energy(self._within(error_rate)))

    def error_rate(self, energy_rel: Rates) -> Rates:
        """Return p, the inverse of eta; SpecError where no error rate within `bounds` takes that energy."""
        energies = finite("energy_rel", energy_rel)
        low, high = self.energy_bounds
        refuse_outside("energy_rel", energies, low, high, f"of {self.kind}")
        return like(energy_rel, np.clip(self._rate(np.clip(energies, low, high)), *self.bounds))

    def slope(self, error_rate: Rates) -> Rates:
        """Return d eta/dp, the marginal cost of reliability: negative; SpecError outside of `bounds`."""
        return like(error_rate, self._slope(self._within(error_rate)))

    @property
    def energy_bounds(self) -> tuple[float, float]:
        """Least and largest energy: of the largest and of the least error rate."""
        least, largest = self.bounds
        ends = self._energy(np.array([largest, least]))
        return float(ends[0]), float(ends[1])

    def v_rel(self, error_rate: Rates) -> Rates:
        """Return the voltage over the reference's; SpecError for a law that has none."""
        raise SpecError(f"v_rel: the law {self.kind} knows no voltage; give energy_rel or error_rate_p")

    def error_rate_at(self, v_rel: Rates) -> Rates:
        """Return the error rate at a voltage over the reference's; SpecError for a law that has none."""
        raise SpecError(f"v_rel: the law {self.kind} knows no voltage; give energy_rel or error_rate_p")

    def _within(self, error_rate: float | Floats) -> Floats:
        rates = finite("error_rate", error_rate)
        refuse_outside("error_rate", rates, *self.bounds, f"of {self.kind}")
        return np.clip(rates, *self.bounds)


def finite(name: str, values: float | Floats) -> Floats:
    """Return values as an array of floats; SpecError unless all are finite."""
    numbers = np.asarray(values, np.float64)
    if not np.all(np.isfinite(numbers)):
        raise SpecError(f"{name}: need finite numbers")
    return numbers


def refuse_outside(name: str, values: Floats, low: float, high: float, of: str) -> None:
    """Raise SpecError beyond the bounds, but for the rounding of a last digit."""
    wrong = (values < low * (1.0 - 1e-12)) | (values > high * (1.0 + 1e-12))
    if np.any(wrong):
        value = float(np.atleast_1d(values)[np.atleast_1d(wrong)][0])
        raise SpecError(f"{name}: {value:g}: need {low:.6g} <= {name} <= {high:.6g}, the range {of}; move it inside, or use another law")


def like(given: Rates, found: Floats) -> Rates:
    """Return what was found as a float where a float was given."""
    return found if isinstance(given, np.ndarray) else float(found)


def check_same_reference(laws: Iterable[ReliabilityLaw]) -> str:
    """Return the one `energy_reference` of all laws; SpecError if they have several, so that no two normalizations are mixed."""
    references = {law.energy_reference: law.kind for law in laws}
    if len(references) > 1:
        told = "; ".join(f"{kind}: {text}" for text, kind in references.items())
        raise SpecError(f"energies of different references cannot be compared: {told}; use one law, or report each beside its reference")
    return next(iter(references), "")
