"""How the documentation is built: `sphinx-build -W docs docs/_build/html`; its examples run with `-b doctest`."""

import csv
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

from docutils import nodes
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
html_theme_options = {"description": "Error, power and the best design of memristor DNN accelerators", "fixed_sidebar": True}
html_show_sourcelink = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = False

doctest_test_doctest_blocks = ""  # what is not marked `.. doctest::` is an illustration
doctest_global_setup = "import warnings; warnings.simplefilter('ignore')"
trim_doctest_flags = True


class MeasuredTables(SphinxDirective):
    """Show the tables in `docs/tables` whose names match, each as it was measured; say so where there is none."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        found = sorted(Path(self.env.srcdir, "tables").glob(self.arguments[0] + ".csv"))
        if not found:
            text = f"No table {self.arguments[0]!r} in this copy; `python -m validation` measures it and writes it here."
            return [nodes.paragraph("", text)]
        return [node for path in found for node in self._shown(path)]

    def _shown(self, path: Path) -> list[nodes.Node]:
        self.env.note_dependency(str(path))
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if row and not row[0].startswith("#")]
        return [nodes.paragraph("", "", nodes.literal("", f"docs/tables/{path.name}")), _table(rows)]


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
    app.add_directive("embedded-networks", EmbeddedNetworks)
    return {"version": version, "parallel_read_safe": True}
