"""What a conversion takes: energy, time and area, by published models.

    survey regression   215 published converters (Murmann's survey), as fitted in hwcomponents-adc (Andrulis et al., arXiv 2404.06553)
    Walden              E = FOM_W 2^n
    Schreier            E = 10^((SNDR - FOM_S) / 10) / 2,   SNDR = 6.02 n + 1.76 dB
    SAR, 28 nm          E = (100 n + 0.001 4^n) fF V^2, ZigZag 3.8.5 (Mei et al., IEEE TC 2021)
    MNSIM's ADCs        power over n + 2 periods, MNSIM 2.0 (Zhu et al., IEEE TCAD 2023)
    fixed               a published point
"""

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from devices.base.errors import SpecError
from devices.base.toml_codec import about, check_types, raise_faults
from devices.law import Component, Cost

PJ, FF, UM2 = 1e-12, 1e-15, 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class ConverterCost(Component):
    """A model of energy, time and area over the number of bits."""

    kind: ClassVar[str]

    @abstractmethod
    def energy_j(self, n_bits: int) -> float:
        """Return the energy of one conversion."""

    def time_s(self, n_bits: int) -> float | None:
        """Return the time of one conversion; None where the model does not say."""
        return None

    def area(self, n_bits: int) -> float | None:
        """Return the area in square metres; None where the model does not say."""
        return None

    def cost(self, action: str, **statistics: float) -> Cost:
        """Return the cost of `convert`, given `n_bits`."""
        if action != "convert":
            raise ValueError(f"a converter knows the action 'convert', not {action!r}")
        n_bits = int(statistics["n_bits"])
        time_s = self.time_s(n_bits) or 0.0
        return Cost(energy_j=self.energy_j(n_bits), time_s=time_s, occupancy_s=time_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyRegression(ConverterCost):
    """Regression over 215 published ADCs: least energy that the best quarter reaches at a rate, and what technology adds.

    Coefficients of hwcomponents-adc (`adc_data/model.yaml`); it starts at 4 bits, and below them costs what 4 bits cost.
    """

    kind: ClassVar[str] = "survey_regression"
    rate_hz: float = field(metadata=about("Conversions a second.", above=0.0))
    technology_m: float = field(metadata=about("Feature size of the process.", above=0.0))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))

    def energy_j(self, n_bits: int) -> float:
        """Return the energy of one conversion."""
        bits = max(n_bits, 4)
        fom = min(213.780669 - 2.871903 * math.log(self.rate_hz), 128.306829 + 3.220511 * bits)
        least = 0.5 * 10.0 ** ((6.0206 * bits + 1.7609 - fom) / 10.0)
        nm = self.technology_m * 1e9
        return least * math.exp(26.049622 + 1.880037 * math.log(nm) - 2.829126 * math.log(bits) - 1.470202) * PJ

    def time_s(self, n_bits: int) -> float:
        """Return the time between conversions."""
        return 1.0 / self.rate_hz

    def area(self, n_bits: int) -> float:
        """Return the area in square metres."""
        nm = self.technology_m * 1e9
        energy_pj = self.energy_j(n_bits) / PJ
        log = 1.346192 + 0.993279 * math.log(nm) + 0.180715 * math.log(self.rate_hz) + 0.299124 * math.log(energy_pj)
        return math.exp(log) * UM2


@dataclass(frozen=True, slots=True, kw_only=True)
class Walden(ConverterCost):
    """Walden's figure of merit: the energy of each of 2^n steps (IEEE JSAC 1999)."""

    kind: ClassVar[str] = "walden"
    fom_j: float = field(metadata=about("Energy of a conversion step.", above=0.0))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))

    def energy_j(self, n_bits: int) -> float:
        """Return the energy of one conversion."""
        return self.fom_j * 2.0**n_bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Schreier(ConverterCost):
    """Schreier's figure of merit: a thermal-noise limit, four times the energy a bit."""

    kind: ClassVar[str] = "schreier"
    fom_db: float = field(metadata=about("Figure of merit, in decibels.", above=0.0))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))

    def energy_j(self, n_bits: int) -> float:
        """Return the energy of one conversion."""
        return 0.5 * 10.0 ** ((6.02 * n_bits + 1.76 - self.fom_db) / 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SarModel(ConverterCost):
    """ZigZag's model of a successive-approximation ADC in 28 nm; time grows with the rows of the array."""

    kind: ClassVar[str] = "zigzag_sar"
    v_v: float = field(metadata=about("Supply voltage.", above=0.0))
    n_rows: int = field(metadata=about("Rows of the array that it reads.", at_least=1))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))

    def energy_j(self, n_bits: int) -> float:
        """Return the energy of one conversion."""
        return (100.0 * n_bits + 0.001 * 4.0**n_bits) * FF * self.v_v**2

    def time_s(self, n_bits: int) -> float:
        """Return the time of one conversion."""
        return n_bits * (0.00653 * self.n_rows + 0.640) * 1e-9

    def area(self, n_bits: int) -> float:
        """Return the area in square metres."""
        return 10.0 ** (-0.0369 * n_bits + 1.206) * 2.0**n_bits * UM2


@dataclass(frozen=True, slots=True, kw_only=True)
class DacModel(ConverterCost):
    """ZigZag's model of a DAC in 28 nm: 50 fF a bit, nothing for one bit (a driver)."""

    kind: ClassVar[str] = "zigzag_dac"
    v_v: float = field(metadata=about("Supply voltage.", above=0.0))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))

    def energy_j(self, n_bits: int) -> float:
        """Return the energy of one conversion."""
        return 0.0 if n_bits == 1 else 50.0 * n_bits * FF * self.v_v**2


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockedModel(ConverterCost):
    """MNSIM 2.0's model (`ADC.py`): a converter of known power decides a bit a period, and takes two more."""

    kind: ClassVar[str] = "mnsim_adc"
    power_w: float = field(metadata=about("Power while it converts.", at_least=0.0))
    clock_hz: float = field(metadata=about("Periods a second.", above=0.0))
    footprint_m2: float | None = field(default=None, metadata=about("Area.", above=0.0, absent="not known"))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))

    def energy_j(self, n_bits: int) -> float:
        """Return the energy of one conversion."""
        return self.power_w * self.time_s(n_bits)

    def time_s(self, n_bits: int) -> float:
        """Return the time of one conversion, (n_bits + 2) / clock_hz."""
        return (n_bits + 2) / self.clock_hz

    def area(self, n_bits: int) -> float | None:
        """Return the area in square metres; None where it is not known."""
        return self.footprint_m2


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedCost(ConverterCost):
    """One published converter, at its own number of bits."""

    kind: ClassVar[str] = "fixed"
    energy_per_conversion_j: float = field(metadata=about("Energy of a conversion.", at_least=0.0))
    time_per_conversion_s: float | None = field(default=None, metadata=about("Time of a conversion.", above=0.0, absent="not known"))
    footprint_m2: float | None = field(default=None, metadata=about("Area.", above=0.0, absent="not known"))
    source: str = field(metadata=about("Where the numbers are from."))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        if not self.source:
            raise SpecError("source: say where the numbers are from")

    def energy_j(self, n_bits: int) -> float:
        """Return the energy of one conversion."""
        return self.energy_per_conversion_j

    def time_s(self, n_bits: int) -> float | None:
        """Return the time of one conversion; None where it is not known."""
        return self.time_per_conversion_s

    def area(self, n_bits: int) -> float | None:
        """Return the area in square metres; None where it is not known."""
        return self.footprint_m2


COST_MODELS: dict[str, type[ConverterCost]] = {
    model.kind: model for model in (SurveyRegression, Walden, Schreier, SarModel, DacModel, ClockedModel, FixedCost)
}
