"""How the documentation is built: `sphinx-build -W docs docs/_build/html`; its examples run with `-b doctest`."""

import csv
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from accelsim import __version__

project = "accelsim"
author = "the accelsim authors"
copyright = "2026, the accelsim authors"
version = release = __version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.doctest", "sphinx.ext.mathjax", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "tables"]
html_theme = "alabaster"
html_theme_options = {
    "description": "Error, time, energy and the best design of memristor DNN accelerators",
    "fixed_sidebar": True,
    "page_width": "1240px",
    "body_max_width": "none",
}
html_static_path = ["_static"]
html_show_sourcelink = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = False

doctest_test_doctest_blocks = ""  # what is not marked `.. doctest::` is an illustration
doctest_global_setup = "import warnings; warnings.simplefilter('ignore')"
trim_doctest_flags = True


class MeasuredTables(SphinxDirective):
    """Show the tables in `docs/tables` whose names match, each as it was measured; say so where there is none.

    `:where: method=adjoint used=adjoint` leaves other rows out, `:columns: cell ratio` other columns.
    """

    required_arguments = 1
    option_spec: ClassVar = {"where": directives.unchanged_required, "columns": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        found = sorted(Path(self.env.srcdir, "tables").glob(self.arguments[0] + ".csv"))
        if not found:
            text = f"No table {self.arguments[0]!r} in this copy; `python -m validation` measures it and writes it here."
            return [nodes.paragraph("", text)]
        return [node for path in found for node in self._shown(path)]

    def _shown(self, path: Path) -> list[nodes.Node]:
        self.env.note_dependency(str(path))
        head, *rows = _rows(path)
        wanted = [pair.split("=", 1) for pair in self.options.get("where", "").split()]
        columns = [head.index(name) for name in self.options.get("columns", " ".join(head)).split()]
        kept = [row for row in rows if all(row[head.index(name)] == value for name, value in wanted)]
        if not kept:
            raise self.error(f"{path.name} has no row where {self.options['where']}")
        title = nodes.paragraph("", "", nodes.literal("", f"docs/tables/{path.name}"))
        if wanted:
            title += nodes.Text(f", where {self.options['where']}")
        return [title, _table([[row[i] for i in columns] for row in (head, *kept)])]


class MeasuredRange(SphinxDirective):
    """Show how far predictions of one method were off, by relative MSE: the least and the greatest ratio of tables, and where."""

    required_arguments, optional_arguments = 1, 8

    def run(self) -> list[nodes.Node]:
        method, *names = self.arguments
        rows = [row for name in names for row in self._read(name) if row["method"] == method]
        table = [["relative MSE", "cases", "least predicted / sampled", "greatest predicted / sampled"]]
        for low, high, says in BANDS:
            found = sorted((float(row["ratio"]), row["cell"]) for row in rows if low <= float(row["mse_rel"]) < high)
            if found:
                table.append([says, str(len(found)), *(f"{ratio:.3f} ({cell})" for ratio, cell in (found[0], found[-1]))])
        title = nodes.paragraph("", "", nodes.literal("", method), nodes.Text(" in "))
        for i, name in enumerate(names):
            title += [nodes.Text(" and "), nodes.literal("", f"docs/tables/{name}.csv")][not i :]
        return [title, _table(table)]

    def _read(self, name: str) -> list[dict[str, str]]:
        path = Path(self.env.srcdir, "tables", f"{name}.csv")
        self.env.note_dependency(str(path))
        head, *rows = _rows(path)
        return [dict(zip(head, row, strict=True)) for row in rows]


BANDS = ((0.0, 0.005, "below 0.005"), (0.005, 0.1, "0.005 to 0.1"), (0.1, 0.3, "0.1 to 0.3"), (0.3, float("inf"), "above 0.3"))


def _rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.reader(file) if row and not row[0].startswith("#")]


class EmbeddedNetworks(SphinxDirective):
    """Show what the cards of the embedded networks say."""

    def run(self) -> list[nodes.Node]:
        text = files("workloads.zoo").joinpath("cards.toml").read_text(encoding="utf-8")
        head = ["network", "parameters", "multiply-adds", "accuracy, 10,000 test images", "accuracy, the 1,000 embedded"]
        return [_table([head, *(_card_row(name, card) for name, card in tomllib.loads(text).items())])]


def _card_row(name: str, card: dict[str, Any]) -> list[str]:
    counts = [f"{card[key]:,}" for key in ("n_parameters", "n_macs")]
    return [name, *counts, *(f"{100 * card[key]:.1f} %" for key in ("accuracy_test10000", "accuracy_embedded1000"))]


def _table(rows: list[list[str]]) -> nodes.table:
    group = nodes.tgroup(cols=len(rows[0]))
    group.extend(nodes.colspec(colwidth=1) for _ in rows[0])
    group += nodes.thead("", _row(rows[0]))
    group += nodes.tbody("", *map(_row, rows[1:]))
    return nodes.table("", group)


def _row(cells: list[str]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", cell)) for cell in cells))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("measured-tables", MeasuredTables)
    app.add_directive("measured-range", MeasuredRange)
    app.add_directive("embedded-networks", EmbeddedNetworks)
    return {"version": version, "parallel_read_safe": True}
