"""Numbers with units: `"25 uS"` read as 2.5e-05 siemens, and printed back.

The unit that is expected follows from the name of the field (`g_max_siemens`, `v_read_v`); a number without a unit
is in that unit. Prefixes shift the decimal exponent of the text, so `"25 uS"` and 25e-6 are the same float and a
printed quantity reads back bit for bit.
"""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches

from devices.base.errors import SpecError

PREFIXES = {"T": 12, "G": 9, "M": 6, "k": 3, "": 0, "m": -3, "u": -6, "n": -9, "p": -12, "f": -15, "a": -18}
MU = ("\u00b5", "\u03bc")
MAX_CHARACTERS = 64
_NUMBER = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE]([+-]?[0-9]{1,6}))?\s*(.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A unit of a spec: what it measures, its symbol, other spellings; `power` is 2 for areas (1 mm2 = 1e-6 m2)."""

    name: str
    symbol: str
    measures: str
    example: str
    spellings: tuple[str, ...] = ()
    power: int = 1


UNITS = {
    unit.name: unit
    for unit in (
        Unit(name="siemens", symbol="S", measures="a conductance", example='"25 uS"'),
        Unit(name="ohm", symbol="ohm", measures="a resistance", example='"10 kohm"', spellings=("\u03a9", "\u2126", "Ohm")),
        Unit(name="volt", symbol="V", measures="a voltage", example='"0.2 V"'),
        Unit(name="ampere", symbol="A", measures="a current", example='"1 uA"'),
        Unit(name="second", symbol="s", measures="a time", example='"100 ns"'),
        Unit(name="watt", symbol="W", measures="a power", example='"10 mW"'),
        Unit(name="joule", symbol="J", measures="an energy", example='"2 pJ"'),
        Unit(name="farad", symbol="F", measures="a capacitance", example='"1 fF"'),
        Unit(name="hertz", symbol="Hz", measures="a rate", example='"1 kHz"'),
        Unit(name="metre", symbol="m", measures="a length", example='"32 nm"'),
        Unit(name="metre2", symbol="m2", measures="an area", example='"1 mm2"', spellings=("m\u00b2", "m^2"), power=2),
        Unit(name="relative", symbol="", measures="a ratio", example='0.01 or "1 %"'),
        Unit(name="probability", symbol="", measures="a probability", example="1e-4"),
        Unit(name="number", symbol="", measures="a plain number", example="0.5"),
    )
}
SUFFIXES = {
    "siemens": "siemens", "ohm": "ohm", "v": "volt", "a": "ampere", "s": "second", "w": "watt", "j": "joule",
    "f": "farad", "hz": "hertz", "m": "metre", "m2": "metre2", "rel": "relative", "p": "probability",
}  # fmt: skip
_LONG_TIMES = {"min": 60.0, "h": 3600.0, "day": 86400.0}


def _spelled() -> dict[str, tuple[str, int]]:
    table: dict[str, tuple[str, int]] = {"%": ("relative", -2)}
    for unit in UNITS.values():
        for symbol in (unit.symbol, *unit.spellings) if unit.symbol else ():
            for prefix, exponent in (*PREFIXES.items(), *((mu, -6) for mu in MU)):
                table[prefix + symbol] = (unit.name, exponent * unit.power)
    return table


_SPELLED = _spelled()


def unit_of(field_name: str) -> str:
    """Return the name of the unit that a field's suffix declares; `number` without one."""
    _, underscore, suffix = field_name.rpartition("_")
    return SUFFIXES.get(suffix, "number") if underscore else "number"


def parse_quantity(value: object, unit: str) -> float:
    """Return `value`, a number or text like `"25 uS"`, in SI.

    Raises
    ------
    SpecError
        Not a finite number, or a unit that is not `unit`; the message does not repeat the value.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise SpecError(f"{_need(unit)}; {_a_kind(value)} is not a number")
    number = _from_text(value, unit) if isinstance(value, str) else _from_number(value, unit)
    if not math.isfinite(number):
        raise SpecError(f"{_need(unit)}; it must be finite")
    return number + 0.0  # -0.0 becomes 0.0


def format_quantity(value: float, unit: str, *, n_digits: int | None = None) -> str:
    """Return text such as `25 uS`; every digit by default, so that it reads back as the same float."""
    symbol, power = UNITS[unit].symbol, UNITS[unit].power
    rounded = float(f"{value:.{n_digits}g}") if n_digits is not None and math.isfinite(value) else float(value)
    if not symbol:
        return _plain(rounded)
    if not math.isfinite(rounded) or rounded == 0.0:
        return f"{rounded + 0.0:g} {symbol}"
    decimal = Decimal(repr(rounded))
    for prefix, exponent in PREFIXES.items():
        shifted = decimal.scaleb(-exponent * power)
        if 0 <= shifted.adjusted() < 3 * power:
            return f"{_digits(shifted)} {prefix}{symbol}"
    return f"{_plain(rounded)} {symbol}"


def _from_number(value: float, unit: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise SpecError(f"{_need(unit)}; it is too large for a float") from None


def _from_text(text: str, unit: str) -> float:
    match = _NUMBER.fullmatch(text.strip()) if len(text) <= MAX_CHARACTERS else None
    if match is None:
        raise SpecError(f"{_need(unit)}; this does not begin with a number" if len(text) <= MAX_CHARACTERS else _need(unit))
    digits, exponent, symbol = match[1], int(match[2] or 0), match[3]
    if symbol in _LONG_TIMES and unit == "second":
        return float(f"{digits}e{exponent}") * _LONG_TIMES[symbol]
    return float(f"{digits}e{exponent + _shift(symbol, unit)}")


def _shift(symbol: str, unit: str) -> int:
    if not symbol:
        return 0
    measured, shift = _SPELLED.get(symbol, (None, 0))
    if measured == unit or (measured == "relative" and unit == "probability"):
        return shift
    if measured is not None:
        raise SpecError(f"{_need(unit)}; {symbol} is {UNITS[measured].measures}")
    known = [spelled for spelled, (name, _) in _SPELLED.items() if name == unit]
    nearest = [spelled for spelled in known if spelled.lower() == symbol.lower()] or get_close_matches(symbol, known, n=1, cutoff=0.3)
    raise SpecError(f"{_need(unit)}; {symbol!r} is no unit here" + (f"; nearest: {nearest[0]}" if nearest else ""))


def _need(unit: str) -> str:
    described = UNITS[unit]
    in_unit = f" in {unit}" if described.symbol else ""
    return f"need {described.measures}{in_unit}, e.g. {described.example}"


def _a_kind(value: object) -> str:
    names = {bool: "a boolean", dict: "a table", list: "a list", type(None): "nothing"}
    return names.get(type(value), f"a {type(value).__name__}")


def _digits(decimal: Decimal) -> str:
    text = f"{decimal:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _plain(value: float) -> str:
    text = repr(value + 0.0)
    return text.removesuffix(".0")


def percent(value: float | None, digits: int = 2) -> str:
    """Return a share as a percentage, or a dash."""
    if value is None or not math.isfinite(value):
        return "-"
    rounded = round(100 * value, digits) + 0.0  # -0.0 becomes 0.0
    return f"{rounded:.{digits}f} %"
