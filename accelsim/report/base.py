"""What every report can do: print as a table, turn into HTML, dicts and JSON, be saved in a run folder and drawn."""

import html
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from accelsim.report.files import RUN_SCHEMA
from accelsim.report.origin import Provenance

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

class Report(ABC):
    """A frozen answer. Subclasses say what their numbers are called and which rows their table has."""

    __slots__ = ()
    kind: ClassVar[str]
    provenance: Provenance

    @abstractmethod
    def numbers(self) -> dict[str, Any]:
        """Return the answer as plain numbers, strings, lists and dicts, by the names of the JSON."""

    @abstractmethod
    def rows(self) -> list[tuple[str, str]]:
        """Return the rows of the table: what it is, and its value with unit, interval and meaning."""

    @abstractmethod
    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the detail as a list of flat records, one a layer, trial summary or Pareto point."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that a run folder keeps beside the numbers."""

    @abstractmethod
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the report and return the axes; never shows a window."""

    def pictures(self) -> tuple[str, ...]:
        """Return the names of further pictures that `plot(what=name)` draws, for a run folder."""
        return ()

    def texts(self) -> Mapping[str, str]:
        """Return further text files of a run folder, by name."""
        return {}

    def to_json_dict(self) -> dict[str, Any]:
        """Return everything that `--json` prints; no NaN: what is not known is None."""
        p = self.provenance
        head = {
            "schema": RUN_SCHEMA, "kind": self.kind, "version": p.version, "seed": p.seed,
            "network": {"name": p.network, "digest": p.network_digest}, "spec_digest": p.spec_digest,
            "output": p.output, "reference": p.reference, "warnings": list(p.warnings),
        }
        return clean({**head, **self.numbers()})

    def to_json(self) -> str:
        """Return `to_json_dict` as text."""
        return json.dumps(self.to_json_dict(), indent=2, allow_nan=False)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return `to_dicts` as a DataFrame; needs the extra `frames`."""
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_pandas() needs pandas: pip install 'accelsim[frames]'") from error
        return pandas.DataFrame(self.to_dicts())

    def save(self, folder: str | Path) -> Path:
        """Write a run folder (spec, manifest, report, arrays, tables) and return its path; see `accelsim.load_report`."""
        from accelsim.report.run_folder import save_report  # slow to import

        return save_report(self, folder)

    def __str__(self) -> str:
        return text_table(self.rows())

    def _repr_html_(self) -> str:
        cells = "".join(f"<tr><th style='text-align:left'>{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in self.rows())
        return f"<table>{cells}</table>"


def text_table(rows: Iterable[tuple[str, str]]) -> str:
    """Return two aligned columns."""
    listed = list(rows)
    width = max((len(name) for name, _ in listed), default=0)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in listed)


LONGEST_WORD = 16
"""Entries that are longer and begin with a letter are text."""


def columns_table(header: list[str], body: list[list[str]]) -> str:
    """Return a table with a header; the first column and columns of words are flush left, numbers right."""
    widths = [max(len(row[i]) for row in [header, *body]) for i in range(len(header))]
    left = [i == 0 or any(row[i][:1].isalpha() and len(row[i]) > LONGEST_WORD for row in body) for i in range(len(header))]

    def line(row: list[str]) -> str:
        cells = (f"{cell:<{w}}" if flush else f"{cell:>{w}}" for cell, w, flush in zip(row, widths, left))
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), *(line(row) for row in body)])


def clean(value: Any) -> Any:
    """Return `value` in plain JSON types, with None for what is not a finite number."""
    if isinstance(value, dict):
        return {str(k): clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(v) for v in value]
    if isinstance(value, np.ndarray):
        return clean(value.tolist())
    if isinstance(value, np.generic):
        return clean(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
