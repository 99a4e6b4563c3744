"""An accelerator, described: cells, how weights are mapped on them, how they are driven and sensed.

Everything is a frozen record in SI; a spec in TOML, a preset or Python makes the same record, `to_toml` writes it back.
A layer may differ (`[layers."features.0"]`): `for_layer` returns the accelerator that this layer sees.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from accelsim import spec
from devices import catalog
from devices.base.errors import SpecError
from devices.base.quantity import format_quantity
from devices.base.toml_codec import (
    Faults,
    about,
    check_types,
    converted,
    decode,
    joined,
    kind_of,
    raise_faults,
    shown,
    string_text,
    to_table,
    value_text,
    write_lines,
)
from devices.law import CellLaw, ReadLaw

Leaf: TypeAlias = float | int | bool | str | None

SCHEMA = 1


def _programming_laws() -> Mapping[str, type]:
    from devices.programming import PROGRAMMING_LAWS  # SciPy is slow to import

    return PROGRAMMING_LAWS


def _read_laws() -> Mapping[str, type]:
    from devices.read_noise import READ_LAWS

    return READ_LAWS


_PROGRAMMING_DOCS = {
    "error_rel": "Standard deviation of the error, over cell.g_max_siemens (state_independent) or over the target (proportional).",
    "clip": "Whether a conductance that would be negative becomes zero.",
}
_READ_DOCS = {"error_rel": "Standard deviation of the noise, over cell.g_max_siemens (state_independent) or the conductance (proportional)."}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What the technology gives; never optimized.

    Raises SpecError unless 0 <= g_min_siemens < g_max_siemens.
    """

    g_min_siemens: float = field(metadata=about("Lowest conductance a cell can be given.", at_least=0.0))
    g_max_siemens: float = field(metadata=about("Highest conductance a cell can be given; error_rel is a fraction of it.", above=0.0))
    source: str = field(default="", metadata=about("Where these numbers are from.", per_layer=False))
    programming: CellLaw | None = field(
        default=None,
        metadata=about("What a programmed conductance misses its target by.", absent="no error", kinds=_programming_laws, docs=_PROGRAMMING_DOCS),
    )
    read_noise: ReadLaw | None = field(
        default=None,
        metadata=about("What each read adds afresh.", absent="no noise", kinds=_read_laws, docs=_READ_DOCS),
    )

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        if not self.g_min_siemens < self.g_max_siemens:
            raise SpecError(f"need 0 <= g_min_siemens < g_max_siemens, got {self.g_min_siemens:g} S and {self.g_max_siemens:g} S")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySize:
    """The largest array there is; layers that need more are split."""

    n_rows: int | None = field(default=None, metadata=about("Rows (inputs) of an array.", at_least=1, absent="as many as the layer has"))
    n_columns: int | None = field(default=None, metadata=about("Columns (pairs of devices) of an array.", at_least=1, absent="as many as needed"))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping_:
    """Placeholder replaced below."""
