"""A design: what an optimum chose, to place a network with, to keep in a file, to start the next optimum from."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self, TypeAlias, get_args

from accelsim.accelerator import Accelerator
from devices.base.errors import SpecError
from devices.base.quantity import parse_quantity
from devices.base.toml_codec import (
    Faults,
    joined,
    key_text,
    nearest_text,
    parse_toml,
    raise_faults,
    read_text,
    shown,
    string_text,
    value_text,
)

Conductances: TypeAlias = float | tuple[float, ...]
Scale: TypeAlias = Literal["network", "layer", "column"]

SCHEMA = 1
MAX_BITS = 24
MAX_FILE_BYTES = 16 * 1024 * 1024
_COLUMNS_A_LINE = 8
PARTS = ("weights", "activations", "partial_sums")
_TEXTS = ("network_digest", "accelerator_digest", "origin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Conductances that an optimum gave to the largest weights.

    Parameters
    ----------
    g_used_siemens
        By layer name: one conductance, or one for each column (only where `scale` is `column`).
    scale
        What shares one factor from weights to conductances; with `network`, all layers have the same conductance.
    adc_bits
        Bits of the converters behind the columns, by layer name, where the optimum chose them.
    slice_bits
        Bits of each slice of a layer's weights, by layer name, where the optimum chose them; `place` takes them, for ranges go with them.
    memory_p
        Error rates of memories by part (`weights`, `activations`, `partial_sums`) and layer name: one, or one for each bit, lowest first.
    memory_secded
        By part, the layers whose words have a SECDED code; a part that is named has none in other layers.
    network_digest, accelerator_digest, origin
        What it was found for and how, as text; empty where not known.
    """

    g_used_siemens: Mapping[str, Conductances]
    scale: Scale = "layer"
    adc_bits: Mapping[str, int] = field(default_factory=dict)
    slice_bits: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    memory_p: Mapping[str, Mapping[str, Conductances]] = field(default_factory=dict)
    memory_secded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    network_digest: str = ""
    accelerator_digest: str = ""
    origin: str = field(default="")

    def __post_init__(self) -> None:
        wrong = [f"{name}: need text" for name in _TEXTS if not isinstance(getattr(self, name), str)]
        if self.scale not in get_args(Scale):
            wrong.append(f"scale: {shown(self.scale)}: need {' | '.join(get_args(Scale))}")
        if not isinstance(self.g_used_siemens, Mapping) or not (self.g_used_siemens or self.memory_p):
            wrong.append("g_used_siemens: need at least one layer")
        wrong += _wrong_rates(self.memory_p, self.memory_secded)
        if any(not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MAX_BITS for n in self.adc_bits.values()):
            wrong.append(f"adc_bits: need whole numbers from 1 to {MAX_BITS}")
        if any(not bits or any(not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in bits) for bits in self.slice_bits.values()):
            wrong.append("slice_bits: need lists of whole numbers from 1 on, e.g. [4, 4]")
        raise_faults(wrong)
        faults = Faults("design")
        used = {name: _conductances(value, faults=faults, name=name) for name, value in self.g_used_siemens.items()}
        raise_faults(faults.lines)
        _check_scale(used, self.scale)
        object.__setattr__(self, "g_used_siemens", MappingProxyType(used))
        object.__setattr__(self, "adc_bits", MappingProxyType(dict(self.adc_bits)))
        object.__setattr__(self, "slice_bits", MappingProxyType({name: tuple(bits) for name, bits in self.slice_bits.items()}))
        object.__setattr__(self, "memory_p", MappingProxyType({part: dict(rates) for part, rates in self.memory_p.items()}))
        object.__setattr__(self, "memory_secded", MappingProxyType({part: tuple(has) for part, has in self.memory_secded.items()}))

    def __hash__(self) -> int:
        rates = tuple((part, tuple(by_layer.items())) for part, by_layer in self.memory_p.items())
        codes = tuple(self.memory_secded.items())
        plain = (tuple(part.items()) for part in (self.g_used_siemens, self.adc_bits, self.slice_bits))
        return hash((self.scale, *plain, rates, codes))

    def __reduce__(self) -> tuple[Any, ...]:
        more = {name: getattr(self, name) for name in _TEXTS}
        kept = {name: dict(getattr(self, name)) for name in ("g_used_siemens", "adc_bits", "slice_bits", "memory_p", "memory_secded")}
        return _rebuilt, (kept | {"scale": self.scale} | more,)

    def check_against(self, accelerator: Accelerator) -> None:
        """Raise SpecError unless every conductance is in the range of its layer's cells: g_min < g_used <= g_max."""
        wrong = []
        for name, value in self.g_used_siemens.items():
            cell = accelerator.for_layer(name).cell
            outside = [g for g in _as_tuple(value) if not cell.g_min_siemens < g <= cell.g_max_siemens]
            if outside:
                wrong.append(
                    f"{joined('g_used_siemens', name)}: need g_min_siemens < g_used_siemens <= g_max_siemens, "
                    f"got {outside[0]:g} S with {cell.g_min_siemens:g} S and {cell.g_max_siemens:g} S"
                )
        raise_faults(wrong)

    def to_toml(self) -> str:
        """Return the design as TOML, with every digit."""
        return "\n".join(_lines(self)) + "\n"

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Return the design of a file (at most 16 MiB: there may be a value for every column)."""
        return cls.from_text(read_text(Path(path), max_bytes=MAX_FILE_BYTES), origin=str(path))

    @classmethod
    def from_text(cls, text: str, *, origin: str = "design") -> Self:
        """Return the design that a TOML text describes; SpecError with every fault at once."""
        table = parse_toml(text, origin=origin, max_bytes=MAX_FILE_BYTES)
        faults = Faults(origin)
        values = _checked_table(table, faults=faults)
        faults.raise_if_any()
        try:
            return cls(**values)
        except SpecError as error:
            raise SpecError(f"{origin}: {error}") from None

    @property
    def digest(self) -> str:
        """SHA-256 of the design's TOML."""
        return hashlib.sha256(self.to_toml().encode()).hexdigest()

    def __repr__(self) -> str:
        return f"Design(scale={self.scale!r}, {len(self.g_used_siemens)} layers, digest {self.digest[:8]})"


def _rebuilt(values: dict[str, Any]) -> Design:
    return Design(**values)


def _as_tuple(value: Conductances) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)


def _conductances(value: object, *, faults: Faults, name: str) -> Conductances:
    path = joined("g_used_siemens", name)
    if not isinstance(value, list | tuple):
        return _conductance(value, faults=faults, path=path)
    if not value:
        faults.add(path, "need at least one column")
    return tuple(_conductance(one, faults=faults, path=f"{path}[{i}]") for i, one in enumerate(value))


def _conductance(value: object, *, faults: Faults, path: str) -> float:
    try:
        siemens = parse_quantity(value, "siemens")
    except SpecError as error:
        faults.add(path, str(error), value=value)
        return math.nan
    if siemens <= 0.0:
        faults.add(path, "need g_used_siemens > 0", value=value)
    return siemens


def _check_scale(used: Mapping[str, Conductances], scale: Scale) -> None:
    by_column = [name for name, value in used.items() if isinstance(value, tuple)]
    if by_column and scale != "column":
        raise SpecError(f"{joined('g_used_siemens', by_column[0])}: one conductance a column needs scale = column, got {scale}")
    if scale == "network" and len(set(used.values())) > 1:
        raise SpecError(f"g_used_siemens: scale = network needs one conductance for all layers, got {len(set(used.values()))}")


def _lines(design: Design) -> Iterator[str]:
    yield f"schema = {SCHEMA}"
    yield f"scale = {string_text(design.scale)}"
    for name in _TEXTS:
        if getattr(design, name):
            yield f"{name} = {string_text(getattr(design, name))}"
    yield from ("", "[g_used_siemens]")
    for layer, value in design.g_used_siemens.items():
        if not isinstance(value, tuple):
            yield f"{key_text(layer)} = {value_text('g_used_siemens', value)}"
            continue
        yield f"{key_text(layer)} = ["
        for i in range(0, len(value), _COLUMNS_A_LINE):
            yield "    " + "".join(f"{value_text('g_used_siemens', one)}, " for one in value[i : i + _COLUMNS_A_LINE]).rstrip()
        yield "]"
    if design.adc_bits:
        yield from ("", "[adc_bits]", *(f"{key_text(layer)} = {n}" for layer, n in design.adc_bits.items()))
    if design.slice_bits:
        yield from ("", "[slice_bits]", *(f"{key_text(layer)} = {list(bits)}" for layer, bits in design.slice_bits.items()))
    for part, rates in design.memory_p.items():
        yield from ("", f"[memory_p.{part}]", *(f"{key_text(layer)} = {value_text('memory_p', p)}" for layer, p in rates.items()))
    if design.memory_secded:
        listed = {part: ", ".join(map(string_text, layers)) for part, layers in design.memory_secded.items()}
        yield from ("", "[memory_secded]", *(f"{part} = [{layers}]" for part, layers in listed.items()))


def _wrong_rates(memory_p: object, memory_secded: object) -> list[str]:
    """Return what is wrong with the memories of a design."""
    if not isinstance(memory_p, Mapping) or not all(isinstance(rates, Mapping) for rates in memory_p.values()):
        return ["memory_p: need tables of layer names and error rates, one for each of weights, activations, partial_sums"]
    wrong = []
    for part, by_layer in memory_p.items():
        if part not in PARTS:
            wrong.append(f"memory_p.{shown(part)}: need {' | '.join(PARTS)}")
        for layer, p in by_layer.items():
            rates = p if isinstance(p, tuple) else (p,)
            if not rates or any(isinstance(r, bool) or not isinstance(r, int | float) or not 0.0 <= r <= 0.5 for r in rates):
                wrong.append(f"{joined('memory_p', part)}.{key_text(layer)}: {shown(p)}: need error rates from 0 to 0.5")
    named = isinstance(memory_secded, Mapping) and all(isinstance(layers, tuple | list) for layers in memory_secded.values())
    if not named or any(part not in PARTS for part in memory_secded):  # type: ignore[attr-defined]
        wrong.append(f"memory_secded: need lists of layer names, by {' | '.join(PARTS)}")
    return wrong


def _checked_table(table: dict[str, Any], *, faults: Faults) -> dict[str, Any]:
    known = ("schema", "scale", *_TEXTS, "g_used_siemens", "adc_bits", "slice_bits", "memory_p", "memory_secded")
    for name in table:
        if name not in known:
            faults.add_unknown("", name, known=known)
    if table.get("schema", SCHEMA) != SCHEMA or isinstance(table.get("schema"), bool):
        faults.add("schema", f"need {SCHEMA}; this version reads no other", value=table["schema"])
    scale = table.get("scale", "layer")
    if scale not in get_args(Scale):
        faults.add("scale", f"need {' | '.join(get_args(Scale))}{nearest_text(str(scale)[:64], get_args(Scale))}", value=scale)
    for name in _TEXTS:
        if not isinstance(table.get(name, ""), str):
            faults.add(name, "need text in quotes", value=table[name])
    used = table.get("g_used_siemens", {})
    if not isinstance(used, dict) or not (used or table.get("memory_p")):
        faults.add("g_used_siemens", "need a table of layer names and conductances")
        used = {}
    values = {name: _conductances(value, faults=faults, name=name) for name, value in used.items()}
    bits = table.get("adc_bits", {})
    if not isinstance(bits, dict) or any(not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MAX_BITS for n in bits.values()):
        faults.add("adc_bits", f"need a table of layer names and whole numbers from 1 to {MAX_BITS}")
        bits = {}
    slices = table.get("slice_bits", {})
    if not isinstance(slices, dict) or any(not isinstance(of, list) for of in slices.values()):
        faults.add("slice_bits", "need a table of layer names and lists of bits, e.g. [4, 4]")
        slices = {}
    texts = {name: table[name] for name in _TEXTS if name in table}
    sliced = {n: tuple(of) for n, of in slices.items()}
    memory = {name: table[name] for name in ("memory_p", "memory_secded") if name in table}
    if isinstance(memory.get("memory_p"), dict):
        memory["memory_p"] = {part: _tuples(rates) for part, rates in memory["memory_p"].items()}
    return {"g_used_siemens": values, "scale": scale, "adc_bits": bits, "slice_bits": sliced} | memory | texts


def _tuples(rates: object) -> object:
    """Return error rates with tuples for lists."""
    if not isinstance(rates, dict):
        return rates
    return {layer: tuple(p) if isinstance(p, list) else p for layer, p in rates.items()}
