"""Strict reading of TOML into frozen records, and writing them back without loss.

The type hints of a record drive both: `float` (its unit from the field's name), `int`, `bool`, `str`, `Literal`,
another record, `X | None`, a family of records told apart by `kind`, and `tuple[X, ...]`: records with a `name`, tables under it. Every
fault of a file is reported at once:

    2 faults in my_chip.toml:
      cell.g_max_siemens: '25 uV': need a conductance in siemens, e.g. "25 uS"; uV is a voltage
      cell.g_mim_siemens: unknown key; nearest: g_min_siemens

A field that may be absent (`X | None`) is absent when left out; `"none"` makes it absent where a base has it.
"""

import dataclasses
import re
import stat
import tomllib
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from devices.base.errors import SpecError
from devices.base.quantity import UNITS, format_quantity, parse_quantity, unit_of

Table: TypeAlias = Mapping[str, Any]
Shape: TypeAlias = Literal["float", "floats", "int", "bool", "str", "choice", "record", "family", "named"]
Record = TypeVar("Record")

MAX_FILE_BYTES = 256 * 1024
MAX_INT = 2**53
MAX_DOTS_A_LINE = 200
MAX_FAULTS_SHOWN = 20
MAX_NUMBERS = 4096
TABLES = ("record", "family", "named")
NONE = "none"
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_MISSING = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a field's type hint does not say.

    Parameters
    ----------
    doc, absent
        Its meaning, and what holds when it is absent.
    at_least, above
        Bounds, in SI.
    kinds, docs
        For a family: returns its records by `kind`, called when first needed; the meaning of their fields.
    per_layer
        Whether a layer may differ in it.
    coded
        Whether the codec reads and writes it; False for what the record's owner does himself.
    short
        Whether short paths lead into a table that is absent.
    record
        Returns the record's type where the hint only stands for it: called when a table is first met, since its module is slow to import.
    """

    doc: str = ""
    absent: str = ""
    at_least: float | None = None
    above: float | None = None
    kinds: Callable[[], Mapping[str, type]] | None = None
    docs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    per_layer: bool = True
    coded: bool = True
    short: bool = True
    record: Callable[[], type] | None = None

    def rule(self, name: str) -> str:
        """Return the bound as text, such as `0 <= levels`; empty without one."""
        if self.above is not None:
            return f"{name} > {self.above:g}"
        return f"{name} >= {self.at_least:g}" if self.at_least is not None else ""

    def allows(self, value: float) -> bool:
        """Return whether the bounds hold."""
        return (self.above is None or value > self.above) and (self.at_least is None or value >= self.at_least)


def about(doc: str, **more: Any) -> dict[str, About]:
    """Return the metadata of a record's field: `field(metadata=about("Read voltage.", above=0.0))`; see About."""
    return {"about": About(doc=doc, **more)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the codec knows of one field."""

    name: str
    shape: Shape
    hint: Any
    optional: bool
    default: Any
    about: About

    @property
    def required(self) -> bool:
        """Whether a record cannot be made without it."""
        return self.default is dataclasses.MISSING

    @property
    def record_type(self) -> Any:
        """The type of a record."""
        return self.hint if self.about.record is None else self.about.record()

    def kinds(self) -> Mapping[str, type]:
        """Return the records of a family by kind; empty for other shapes."""
        return self.about.kinds() if self.about.kinds else {}


def entries(record_type: type) -> tuple[Entry, ...]:
    """Return the coded fields of a record type, scalars before tables, as TOML wants them."""
    return _entries(record_type)


@cache
def _entries(record_type: Any) -> tuple[Entry, ...]:
    hints = get_type_hints(record_type)
    every = [_entry(field, hints[field.name]) for field in dataclasses.fields(record_type)]
    return tuple(sorted((entry for entry in every if entry.about.coded), key=lambda entry: entry.shape in TABLES))


def _entry(field: dataclasses.Field[Any], hint: Any) -> Entry:
    optional = get_origin(hint) in (types.UnionType, Union) and types.NoneType in get_args(hint)
    if optional:
        hint = next(part for part in get_args(hint) if part is not types.NoneType)
    more = field.metadata.get("about", About())
    return Entry(name=field.name, shape=_shape(hint, more), hint=hint, optional=optional, default=field.default, about=more)


def _shape(hint: Any, more: About) -> Shape:
    if more.kinds or not more.coded:
        return "family"
    if get_origin(hint) is Literal:
        return "choice"
    if more.record is not None or dataclasses.is_dataclass(hint):
        return "record"
    if hint == tuple[float, ...]:
        return "floats"
    if get_origin(hint) is tuple and dataclasses.is_dataclass(get_args(hint)[0]):
        return "named"
    scalars: dict[Any, Shape] = {float: "float", int: "int", bool: "bool", str: "str"}
    return scalars[hint]


def kind_of(record: object) -> str:
    """Return the `kind` of a record of a family."""
    return str(getattr(type(record), "kind"))  # noqa: B009


# faults


def key_text(name: str) -> str:
    """Return a key as TOML writes it: bare where that is allowed, quoted otherwise."""
    return name if _BARE_KEY.fullmatch(name) else string_text(name)


def joined(path: str, name: str) -> str:
    """Return the path of `name` inside `path`."""
    return f"{path}.{key_text(name)}" if path else key_text(name)


def shown(value: object) -> str:
    """Return a value as an error shows it: short, and without control characters."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a huge integer"
    text = repr(value[:61] if isinstance(value, str) else value)
    return text if len(text) <= 64 else text[:60] + "..."


def nearest_text(name: str, known: tuple[str, ...]) -> str:
    """Return `; nearest: X`, or the list of what is known when nothing is near."""
    near = get_close_matches(name[:64], known, n=1)
    if near:
        return f"; nearest: {near[0]}"
    return f"; known: {', '.join(known)}" if known else ""


class Faults:
    """All faults of one source, raised together."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.lines: list[str] = []
        self.n = 0

    def add(self, path: str, rule: str, *, value: object = _MISSING) -> None:
        """Note a fault; the first MAX_FAULTS_SHOWN are kept, the others counted."""
        self.n += 1
        if self.n <= MAX_FAULTS_SHOWN:
            self.lines.append(": ".join(part for part in (path[:200], "" if value is _MISSING else shown(value), rule) if part))

    def add_unknown(self, path: str, name: str, *, known: tuple[str, ...]) -> None:
        """Note a key that is not known, with the nearest that is."""
        self.add(joined(path, name), f"unknown key{nearest_text(name, known)}" if self.n < MAX_FAULTS_SHOWN else "")

    def raise_if_any(self) -> None:
        """Raise one SpecError with every fault."""
        if self.n:
            more = [f"... and {self.n - len(self.lines)} more"] if self.n > len(self.lines) else []
            head = f"{self.n} fault{'s' if self.n > 1 else ''} in {self.origin}:"
            raise SpecError("\n  ".join([head, *self.lines, *more]))


# reading


def read_text(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> str:
    """Return the text of a regular file of at most `max_bytes`; refuse others before reading them."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SpecError(f"{path}: not a regular file")
        if status.st_size > max_bytes:
            raise SpecError(f"{path}: {status.st_size} bytes; need at most {max_bytes}")
        with path.open("rb") as file:
            return file.read(max_bytes + 1).decode("utf-8-sig")
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror or error}; give the path of a file that can be read") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except ValueError:
        raise SpecError(f"{shown(str(path))}: no file can have this name") from None


def parse_toml(text: str, *, origin: str, max_bytes: int = MAX_FILE_BYTES) -> dict[str, Any]:
    """Return the tables of a TOML text; SpecError with the line of a syntax error."""
    if len(text) > max_bytes:
        raise SpecError(f"{origin}: {len(text)} characters; need at most {max_bytes}")
    _refuse_long_keys(text, origin)
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise SpecError(f"{origin}: not TOML: nested too deeply") from None
    except ValueError as error:
        reason = str(error).partition(";")[0]  # what follows is Python's advice to programmers
        raise SpecError(f"{origin}: not TOML: {reason}") from None


def _refuse_long_keys(text: str, origin: str) -> None:
    """Refuse lines with very many dots: tomllib's time and memory grow with the square of a key's parts."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > MAX_DOTS_A_LINE:
            raise SpecError(f"{origin}: line {number} has {line.count('.')} dots; need at most {MAX_DOTS_A_LINE}, split the line")


# decoding


def decode(record_type: type[Record], table: object, *, faults: Faults, path: str = "", also: tuple[str, ...] = ()) -> Record | None:
    """Return the record that a table describes, or None after noting everything that is wrong with it.

    `also` names keys that the caller takes out of the table, to suggest when a key is misspelt.
    """
    known = {entry.name: entry for entry in entries(record_type)}
    if not isinstance(table, dict):
        faults.add(path, f"need a table of {', '.join(known)}", value=table)
        return None
    before = faults.n
    for name in table:
        if name not in known:
            faults.add_unknown(path, name, known=(*known, *also))
    values = {
        name: _decode_entry(entry, table.get(name, _MISSING), faults=faults, path=joined(path, name)) for name, entry in known.items()
    }
    return _made(record_type, values, faults=faults, path=path) if faults.n == before else None


def _made(record_type: type[Record], values: Table, *, faults: Faults, path: str) -> Record | None:
    try:
        return record_type(**values)
    except SpecError as error:
        for line in str(error).splitlines():
            inside = bool(path) and line.partition(":")[0].partition(".")[0] in values
            faults.add("" if inside else path, f"{path}.{line}" if inside else line)
        return None


def _decode_entry(entry: Entry, raw: object, *, faults: Faults, path: str) -> Any:
    if raw is _MISSING:
        if entry.required:
            faults.add(path, f"missing; {_need(entry)}")
        return entry.default
    if entry.optional and raw == NONE:
        return None
    if entry.shape == "record":
        return decode(entry.record_type, raw, faults=faults, path=path)
    if entry.shape == "family":
        return _decode_family(entry, raw, faults=faults, path=path)
    if entry.shape == "named":
        return _decode_named(entry, raw, faults=faults, path=path)
    try:
        return converted(entry, raw)
    except SpecError as error:
        faults.add(path, str(error), value=raw)
        return None


def _decode_family(entry: Entry, raw: object, *, faults: Faults, path: str) -> Any:
    kinds = entry.kinds()
    if not isinstance(raw, dict):
        faults.add(path, f"need a table with kind = {_alternatives(kinds)}", value=raw)
        return None
    kind = raw.get("kind", _MISSING)
    if isinstance(kind, str) and kind in kinds:
        return decode(kinds[kind], {name: value for name, value in raw.items() if name != "kind"}, faults=faults, path=path)
    if kind is _MISSING:
        faults.add(joined(path, "kind"), f"missing; need {_alternatives(kinds)}")
    else:
        faults.add(joined(path, "kind"), f"unknown kind{nearest_text(str(kind), tuple(kinds))}", value=kind)
    return None


def _decode_named(entry: Entry, raw: object, *, faults: Faults, path: str) -> Any:
    if not isinstance(raw, dict):
        faults.add(path, "need tables, each under its name", value=raw)
        return None
    record_type = get_args(entry.hint)[0]
    made = [decode(record_type, raw[name], faults=faults, path=joined(path, name)) for name in sorted(raw)]
    return tuple(dataclasses.replace(record, name=name) for name, record in zip(sorted(raw), made) if record is not None)


def converted(entry: Entry, raw: object) -> Any:
    """Return a scalar in the type of its field, within its bounds; raise SpecError with the rule otherwise."""
    value = _typed(entry, raw)
    if entry.shape == "floats" and not all(entry.about.allows(v) for v in value):
        raise SpecError(f"need {entry.about.rule(entry.name)}, each of them")
    if entry.shape in ("float", "int") and not entry.about.allows(value):
        raise SpecError(f"need {entry.about.rule(entry.name)}")
    return value


def _typed(entry: Entry, raw: object) -> Any:
    if entry.shape == "float":
        return parse_quantity(raw, unit_of(entry.name))
    if entry.shape == "floats":
        return _numbers(entry, raw)
    wanted = {"int": int, "bool": bool, "str": str, "choice": str}[entry.shape]
    if not isinstance(raw, wanted) or (entry.shape == "int" and isinstance(raw, bool)):
        raise SpecError(_need(entry))
    if isinstance(raw, int) and abs(raw) > MAX_INT:
        raise SpecError(f"{_need(entry)} of at most {MAX_INT}")
    if entry.shape == "str":
        _refuse_surrogates(str(raw))
    if entry.shape == "choice" and raw not in get_args(entry.hint):
        raise SpecError(_need(entry) + nearest_text(str(raw), get_args(entry.hint)))
    return raw


def _numbers(entry: Entry, raw: object) -> tuple[float, ...]:
    if not isinstance(raw, list | tuple):
        raise SpecError(_need(entry))
    if len(raw) > MAX_NUMBERS:
        raise SpecError(f"need at most {MAX_NUMBERS} numbers, got {len(raw)}")
    try:
        return tuple(parse_quantity(value, unit_of(entry.name)) for value in raw)
    except SpecError as error:
        raise SpecError(f"{error}, each of them") from None


def _need(entry: Entry) -> str:
    if entry.shape == "float":
        unit = UNITS[unit_of(entry.name)]
        return f"need {unit.measures}, e.g. {unit.example}"
    if entry.shape == "floats":
        unit = UNITS[unit_of(entry.name)]
        return f"need a list, each {unit.measures}, e.g. [{unit.example}]"
    if entry.shape == "choice":
        return f"need {_alternatives(get_args(entry.hint))}"
    words = {"int": "a whole number", "bool": "true or false", "str": "text in quotes", "record": "a table"}
    return f"need {words.get(entry.shape, 'a table with a kind')}"


def _alternatives(names: Any) -> str:
    return " | ".join(str(name) for name in names)


def check_types(record: Any) -> list[str]:
    """Return what is wrong with the types and bounds of a record's fields; make its numbers plain floats.

    For `__post_init__`: it refuses booleans, NaN, infinity and text as numbers. Prefixes are for specs only.
    """
    wrong = []
    for entry in entries(type(record)):
        value = getattr(record, entry.name)
        try:
            object.__setattr__(record, entry.name, _checked(entry, value))
        except SpecError as error:
            wrong.append(f"{entry.name}: {shown(value)}: {error}")
    return wrong


def _checked(entry: Entry, value: object) -> object:
    if value is None and entry.optional:
        return None
    if entry.shape in ("record", "family"):
        if not isinstance(value, entry.record_type):
            raise SpecError(f"need a {entry.record_type.__name__}")
        return value
    if entry.shape == "named":
        record_type = get_args(entry.hint)[0]
        if not isinstance(value, tuple) or not all(isinstance(one, record_type) for one in value):
            raise SpecError(f"need a tuple of {record_type.__name__}")
        return tuple(sorted(value, key=lambda one: str(one.name)))
    texts = [value] if entry.shape == "float" else value if entry.shape == "floats" and isinstance(value, list | tuple) else []
    if any(isinstance(text, str) for text in texts):
        raise SpecError(f"need a number in {unit_of(entry.name)}; units are for specs")
    return converted(entry, value)


def raise_faults(wrong: list[str]) -> None:
    """Raise one SpecError with a line for each fault, if there is one."""
    if wrong:
        raise SpecError("\n".join(wrong))


# encoding


def to_table(record: Any) -> dict[str, Any]:
    """Return a record as nested tables of plain values in SI; what is absent is left out."""
    table: dict[str, Any] = {}
    for entry in entries(type(record)):
        value = getattr(record, entry.name)
        if value is None:
            continue
        if entry.shape == "family":
            table[entry.name] = {"kind": kind_of(value)} | to_table(value)
        elif entry.shape == "named":
            table[entry.name] = {one.name: to_table(one) for one in value}
        else:
            table[entry.name] = to_table(value) if entry.shape == "record" else value
    return table


def value_text(name: str, value: Any) -> str:
    """Return a scalar as TOML, in the unit that its field's name declares, with every digit."""
    if value is None:
        return string_text(NONE)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return string_text(value)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(value_text(name, float(v)) for v in value) + "]"
    if isinstance(value, int):
        return str(value)
    text = format_quantity(value, unit_of(name))
    return text if not UNITS[unit_of(name)].symbol else string_text(text)


def string_text(text: str) -> str:
    """Return text as a TOML basic string; what does not print is escaped, so that it cannot steer a terminal."""
    _refuse_surrogates(text)
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    return {10: "\\n", 9: "\\t"}.get(code, f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def _refuse_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SpecError(f"{shown(text)}: not text that UTF-8 can write") from None


def write_lines(record: Any, *, comments: bool = False, path: str = "") -> Iterator[str]:
    """Yield the lines of a record as TOML, its own fields first, then its tables under `[path.name]`."""
    yield from _lines_of(record, About(), comments=comments, path=path)


def _lines_of(record: Any, family: About, *, comments: bool, path: str) -> Iterator[str]:
    for entry in entries(type(record)):
        value = getattr(record, entry.name)
        is_table = entry.shape in TABLES
        if comments:
            yield from _comment(entry, family.docs.get(entry.name, ""), blank=is_table)
            if value is None:
                yield f"# {'[' + joined(path, entry.name) + ']' if is_table else entry.name} is absent"
        if value is None:
            continue
        if not is_table:
            yield f"{entry.name} = {value_text(entry.name, value)}"
            continue
        if entry.shape == "named":
            for one in value:
                inner = joined(joined(path, entry.name), one.name)
                yield from ["", f"[{inner}]"]
                yield from _lines_of(one, entry.about, comments=False, path=inner)
            continue
        yield from [f"[{joined(path, entry.name)}]"] if comments else ["", f"[{joined(path, entry.name)}]"]
        if entry.shape == "family":
            yield f"kind = {string_text(kind_of(value))}"
        yield from _lines_of(value, entry.about, comments=comments, path=joined(path, entry.name))


def _comment(entry: Entry, doc: str, *, blank: bool) -> Iterator[str]:
    if blank:
        yield ""
    more = [part for part in (_kind_of_value(entry), entry.about.rule(entry.name), _default_text(entry)) if part]
    text = f"{entry.about.doc or doc} ({'; '.join(more)})".strip()
    yield f"# {text}"


def _kind_of_value(entry: Entry) -> str:
    if entry.shape in ("float", "floats"):
        return unit_of(entry.name) if entry.shape == "float" else f"a list, {unit_of(entry.name)}"
    if entry.shape == "family":
        return f"kind = {_alternatives(entry.kinds())}"
    words = {"int": "a whole number", "bool": "true or false", "str": "text", "record": "a table", "named": "tables, each under its name"}
    return _alternatives(get_args(entry.hint)) if entry.shape == "choice" else words[entry.shape]


def _default_text(entry: Entry) -> str:
    if entry.required:
        return "required"
    if entry.default is None:
        return f"absent: {entry.about.absent}" if entry.about.absent else "may be absent"
    return "may be left out" if entry.shape in TABLES else f"default {value_text(entry.name, entry.default)}"
