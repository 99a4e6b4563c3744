"""A memory's own energy-reliability law from a CSV: voltages, energies and error rates, interpolated without new extremes.

    v (V),energy (pJ),p
    0.80,2.31,1.9e-6
    0.75,2.02,6.9e-5

`v_rel` and `energy_rel` stand for `v` and `energy` where only ratios are known. Between rows, energy and voltage are interpolated by
Fritsch and Carlson's monotone cubics over Phi^-1(p), which a Gaussian threshold makes a straight line in v, or over ln p.
"""

import csv
import io
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.special import ndtr, ndtri

from devices.base.errors import SpecError
from devices.base.quantity import format_quantity, parse_quantity
from devices.base.toml_codec import about, check_types, raise_faults, read_text, shown
from devices.reliability_law import Floats, Rates, ReliabilityLaw, finite, like, refuse_outside

Over: TypeAlias = Literal["probit", "log"]
N_BISECTIONS = 60
_HEADER = re.compile(r"(v|energy)\s*[\[(]\s*(\S+?)\s*[\])]|(v_rel|energy_rel|p)", re.IGNORECASE)
_UNITS = {"v": "volt", "energy": "joule"}
_EXAMPLE = "e.g. v (V),energy (pJ),p"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tabulated(ReliabilityLaw):
    """Error rates and energies at a few voltages, rising; nothing is known beyond the first and the last."""

    kind: ClassVar[str] = "tabulated"
    voltages_rel: tuple[float, ...] = field(metadata=about("Voltages over the highest, rising to 1.", above=0.0))
    energies_rel: tuple[float, ...] = field(metadata=about("Energy at each voltage over the reference's, rising.", above=0.0))
    error_rates_p: tuple[float, ...] = field(metadata=about("Error rate of a bit at each voltage, falling, at most 0.5.", above=0.0))
    energy_reference: str = field(metadata=about("What an energy of 1 is, as a sentence."))
    source: str = field(metadata=about("Where the numbers are from."))
    over: Over = field(default="probit", metadata=about("What is interpolated over: Phi^-1(p), or ln p."))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        n = len(self.voltages_rel)
        if n < 2 or len(self.energies_rel) != n or len(self.error_rates_p) != n:
            raise SpecError(
                f"error_rates_p: need one of each for 2 or more voltages, got {n} voltages_rel, {len(self.energies_rel)} energies_rel, "
                f"{len(self.error_rates_p)} error_rates_p"
            )
        names = [f"entry {i}" for i in range(n)]
        raise_faults(_disorder(np.array(self.voltages_rel), np.array(self.energies_rel), np.array(self.error_rates_p), names=names))

    @property
    def bounds(self) -> tuple[float, float]:
        return self.error_rates_p[-1], self.error_rates_p[0]

    def v_rel(self, error_rate: Rates) -> Rates:
        """Return the voltage over the highest."""
        return like(error_rate, _curves(self)[1](self._place(self._within(error_rate))))

    def error_rate_at(self, v_rel: Rates) -> Rates:
        """Return the error rate at a voltage over the highest."""
        volts = finite("v_rel", v_rel)
        refuse_outside("v_rel", volts, self.voltages_rel[0], self.voltages_rel[-1], f"of {self.kind}")
        return like(v_rel, self._solved(_curves(self)[1], volts))

    def _energy(self, error_rate: Floats) -> Floats:
        return np.asarray(_curves(self)[0](self._place(error_rate)))

    def _rate(self, energy_rel: Floats) -> Floats:
        return self._solved(_curves(self)[0], energy_rel)

    def _slope(self, error_rate: Floats) -> Floats:
        z = self._place(error_rate)
        stretch = error_rate if self.over == "log" else np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)
        return np.asarray(_curves(self)[0](z, 1)) / stretch

    def _place(self, error_rate: Floats) -> Floats:
        low, high = _places(self)[[0, -1]]
        return np.clip(np.log(error_rate) if self.over == "log" else ndtri(error_rate), low, high)

    def _solved(self, curve: PchipInterpolator, wanted: Floats) -> Floats:
        """Return the error rates where a falling curve has the wanted values."""
        ends = _places(self)[[0, -1]]
        low, high = np.full_like(wanted, ends[0]), np.full_like(wanted, ends[1])
        for _ in range(N_BISECTIONS):
            middle = 0.5 * (low + high)
            above = curve(middle) > wanted
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        middle = 0.5 * (low + high)
        return np.asarray(np.clip(np.exp(middle) if self.over == "log" else ndtr(middle), *self.bounds))


@cache
def _places(law: Tabulated) -> Floats:
    """Return where the table's error rates lie on the axis of the interpolation, rising."""
    rates = np.array(law.error_rates_p[::-1])
    return np.asarray(np.log(rates) if law.over == "log" else ndtri(rates))


@cache
def _curves(law: Tabulated) -> tuple[PchipInterpolator, PchipInterpolator]:
    """Return energy and voltage over the axis of the interpolation."""
    return PchipInterpolator(_places(law), law.energies_rel[::-1]), PchipInterpolator(_places(law), law.voltages_rel[::-1])


def read_reliability(path: str | Path, *, source: str, energy_reference: str | None = None, over: Over = "probit") -> Tabulated:
    """Return the law of a CSV with columns v, energy and p, in any order of rows.

    Energy 1 is that at the highest voltage; `energy_reference` is needed where the file has `energy_rel`, whose numbers are kept.
    Raises SpecError that names the lines where energy does not rise with voltage or the error rate does not fall.
    """
    path = Path(path)
    header, rows = _rows(path)
    columns = _columns(header, path)
    table = np.array([_numbers(row, number, columns, path) for number, row in rows])
    order = np.argsort(table[:, 0], kind="stable")
    lines = [f"line {rows[i][0]}" for i in order]
    volts, energies, rates = table[order].T
    wrong = _disorder(volts, energies, rates, names=lines)
    if wrong:
        raise SpecError("\n  ".join([f"{path}: {len(wrong)} faults:", *wrong]))
    known = columns["energy"][1] == ""
    if known and energy_reference is None:
        raise SpecError(f"{path}: energy_rel: over what? say it by energy_reference, or give energies with their unit, {_EXAMPLE}")
    top = f"that at the highest voltage of {path.name}"
    if not known:
        top = f"{format_quantity(float(energies[-1]), 'joule', n_digits=4)}, {top}"
    if columns["v"][1]:
        top += f", {format_quantity(float(volts[-1]), 'volt', n_digits=4)}"
    return Tabulated(
        voltages_rel=tuple(volts / volts[-1]),
        energies_rel=tuple(energies if known else energies / energies[-1]),
        error_rates_p=tuple(rates),
        energy_reference=energy_reference if known and energy_reference else f"energy 1.0 is {top}",
        source=source,
        over=over,
    )


def _rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    rows = csv.reader(io.StringIO(read_text(path)), strict=True)
    try:
        table = [(rows.line_num, row) for row in rows if any(cell.strip() for cell in row) and not row[0].startswith("#")]
    except csv.Error as error:
        raise SpecError(f"{path}: line {rows.line_num}: not CSV: {error}") from None
    if len(table) < 3:
        raise SpecError(f"{path}: need a header and at least two rows; {_EXAMPLE}")
    for number, row in table[1:]:
        if len(row) != len(table[0][1]):
            raise SpecError(f"{path}: line {number}: {len(row)} values for {len(table[0][1])} columns")
    return table[0][1], table[1:]


def _columns(header: list[str], path: Path) -> dict[str, tuple[int, str]]:
    """Return place and unit of `v`, `energy` and `p`; the unit of a ratio is empty."""
    found: dict[str, tuple[int, str]] = {}
    for at, cell in enumerate(header):
        match = _HEADER.fullmatch(cell.strip())
        if match is None:
            raise SpecError(f"{path}: header: {shown(cell.strip())}: need v, energy, each with its unit, and p; {_EXAMPLE}")
        name = (match[1] or match[3]).lower().removesuffix("_rel")
        if match[2]:
            _factor(name, match[2], path)
        if name in found:
            raise SpecError(f"{path}: header: {shown(cell.strip())}: the second column of {name}")
        found[name] = (at, match[2] or "")
    missing = [name for name in ("v", "energy", "p") if name not in found]
    if missing:
        raise SpecError(f"{path}: header: no column {', '.join(missing)}; {_EXAMPLE}")
    return found


def _factor(name: str, unit: str, path: Path) -> float:
    try:
        return parse_quantity(f"1 {unit}", _UNITS[name])
    except SpecError as error:
        raise SpecError(f"{path}: header: {name}: {shown(unit)}: {error}") from None


def _numbers(row: list[str], number: int, columns: dict[str, tuple[int, str]], path: Path) -> list[float]:
    """Return voltage, energy and error rate of a row, in SI or over the reference."""
    values = []
    for name in ("v", "energy", "p"):
        at, unit = columns[name]
        try:
            value = float(row[at])
        except ValueError:
            raise SpecError(f"{path}: line {number}: {name}: {shown(row[at])}: need a number") from None
        if not 0.0 < value < np.inf or (name == "p" and value > 0.5):
            lever = "; leave out voltages at which no error was seen: they give a limit, not a rate" if value == 0.0 else ""
            raise SpecError(f"{path}: line {number}: {name}: {value:g}: need 0 < {name}{' <= 0.5' if name == 'p' else ''}{lever}")
        values.append(value * (_factor(name, unit, path) if unit else 1.0))
    return values


def _disorder(volts: Floats, energies: Floats, rates: Floats, *, names: list[str]) -> list[str]:
    """Return what does not go as it must from one voltage to the next higher."""
    wrong = []
    for i in range(len(volts) - 1):
        where = f"{names[i]} and {names[i + 1]}"
        if volts[i] >= volts[i + 1]:
            wrong.append(f"{where}: voltages {volts[i]:g}, {volts[i + 1]:g}: need each above the one before")
        if energies[i] >= energies[i + 1]:
            wrong.append(f"{where}: energy goes from {energies[i]:g} to {energies[i + 1]:g}: need it to rise with voltage")
        if rates[i] <= rates[i + 1]:
            wrong.append(f"{where}: p goes from {rates[i]:g} to {rates[i + 1]:g}: need it to fall with voltage; merge or smooth these rows")
    if np.any(rates > 0.5):
        wrong.append(f"{names[int(np.argmax(rates))]}: p {rates.max():g}: need at most 0.5")
    return wrong
