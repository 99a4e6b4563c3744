"""Measured programmings of cells, from a CSV whose header names quantities and units.

    device_id,cycle,target (uS),programmed (uS)
    7,0,12.5,12.31

`target` and `programmed` are needed, in any unit of conductance; `device_id`, `cycle` and `time` may be there. Other columns are refused:
a misspelt `device id` would otherwise be lost without a word.
"""

import csv
import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from devices.base.errors import SpecError
from devices.base.quantity import parse_quantity
from devices.base.toml_codec import nearest_text, read_text, shown

MAX_BYTES = 64 * 2**20
UNITS = {"target": "siemens", "programmed": "siemens", "time": "second"}
NAMES = ("device_id", "cycle", *UNITS)
_HEADER = re.compile(r"(target|programmed|time)\s*(?:[_ ]\s*(\S+)|[\[(]\s*(\S+?)\s*[\])])\s*")
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measurements:
    """Programmed cells, one entry a programming.

    Parameters
    ----------
    target_siemens, programmed_siemens
        What was asked for, and what the cell was found at, `(n,)`.
    device, cycle
        Which device, and which of its programmings, as whole numbers; None where the file does not tell.
    time_s
        Time since programming; None where the file does not tell.
    name, digest
        The file's name and the SHA-256 of its bytes.
    """

    target_siemens: Floats
    programmed_siemens: Floats
    device: NDArray[np.int64] | None
    cycle: NDArray[np.int64] | None
    time_s: Floats | None
    name: str
    digest: str

    def __len__(self) -> int:
        return len(self.target_siemens)

    def chosen(self, which: NDArray[np.bool_]) -> "Measurements":
        """Return the programmings that a mask chooses."""
        parts = {n: None if (v := getattr(self, n)) is None else v[which] for n in ("device", "cycle", "time_s")}
        return Measurements(
            target_siemens=self.target_siemens[which],
            programmed_siemens=self.programmed_siemens[which],
            name=self.name,
            digest=self.digest,
            **parts,
        )


def read_measurements(path: str | Path) -> Measurements:
    """Return the measurements of a CSV file; raises SpecError that names the line, the column and the value."""
    path = Path(path)
    text = read_text(path, max_bytes=MAX_BYTES)
    rows = csv.reader(io.StringIO(text), strict=True)
    try:
        table = [(rows.line_num, row) for row in rows if any(cell.strip() for cell in row) and not row[0].startswith("#")]
    except csv.Error as error:
        raise SpecError(f"{path}: line {rows.line_num}: not CSV: {error}") from None
    if len(table) < 2:
        raise SpecError(f"{path}: need a header and at least one measurement; e.g. target (uS),programmed (uS)")
    columns = _columns(table[0][1], path)
    for number, row in table[1:]:
        if len(row) != len(table[0][1]):
            raise SpecError(f"{path}: line {number}: {len(row)} values for {len(table[0][1])} columns")
    found = {name: _values(name, at, unit, table[1:], path) for name, (at, unit) in columns.items()}
    labels = {
        name: np.unique(np.array([row[columns[name][0]].strip() for _, row in table[1:]]), return_inverse=True)[1].astype(np.int64)
        for name in ("device_id", "cycle")
        if name in columns
    }
    return Measurements(
        target_siemens=found["target"],
        programmed_siemens=found["programmed"],
        device=labels.get("device_id"),
        cycle=labels.get("cycle"),
        time_s=found.get("time"),
        name=path.name,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def _columns(header: list[str], path: Path) -> dict[str, tuple[int, str]]:
    """Return place and unit of each column by its name."""
    columns: dict[str, tuple[int, str]] = {}
    for at, cell in enumerate(header):
        text = cell.strip()
        name, unit = text, ""
        if text not in ("device_id", "cycle"):
            match = _HEADER.fullmatch(text)
            if match is None:
                known = tuple("target (uS)" if n == "target" else "programmed (uS)" if n == "programmed" else n for n in NAMES)
                lever = "give its unit, e.g. target (uS)" if text in UNITS else f"unknown column{nearest_text(text, known)}"
                raise SpecError(f"{path}: header: {shown(text)}: {lever}")
            name, unit = match[1], match[2] or match[3]
            _factor(name, unit, path)
        if name in columns:
            raise SpecError(f"{path}: header: {shown(text)}: the second column of {name}")
        columns[name] = (at, unit)
    for name in ("target", "programmed"):
        if name not in columns:
            raise SpecError(f"{path}: header: no column {name} (uS); there are {', '.join(cell.strip() for cell in header)}")
    return columns


def _factor(name: str, unit: str, path: Path) -> float:
    try:
        return parse_quantity(f"1 {unit}", UNITS[name])
    except SpecError as error:
        raise SpecError(f"{path}: header: {name}: {shown(unit)}: {error}") from None


def _values(name: str, at: int, unit: str, rows: list[tuple[int, list[str]]], path: Path) -> Floats:
    """Return a column in SI; nothing for labels."""
    if name not in UNITS:
        return np.zeros(0)
    values = np.empty(len(rows))
    for i, (number, row) in enumerate(rows):
        try:
            values[i] = float(row[at])
        except ValueError:
            told = f"{path}: line {number}: {name}: {shown(row[at])}: need a number in {unit}; leave out rows that were not measured"
            raise SpecError(told) from None
    wrong = ~np.isfinite(values) | ((values < 0.0) if name != "programmed" else False)
    if wrong.any():
        number, row = rows[int(np.argmax(wrong))]
        rule = "need a finite number" + ("" if name == "programmed" else " of at least 0")
        raise SpecError(f"{path}: line {number}: {name}: {shown(row[at])}: {rule}")
    factor = _factor(name, unit, path)
    whole = round(1.0 / factor) if factor < 1.0 else 1
    return values / whole if abs(whole * factor - 1.0) < 1e-12 else values * factor  # 25 uS is 2.5e-05 S to the last digit
