"""Tests that need an extra carry `pytest.mark.extras`: `.ci/run` runs what has the mark where the extras are, and little else there."""

import ast
import configparser
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXTRAS = ("train", "frames", "explore", "cluster")
RUN_ELSEWHERE = {"test_notebooks.py"}
"""`.ci/run` names these themselves."""


def _packages() -> set[str]:
    """Return the packages that the extras bring, by the names of setup.cfg."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = "\n".join(config["options.extras_require"][extra] for extra in EXTRAS).split()
    return {re.split(r"[<>=!\[;]", line)[0] for line in lines}


def _unmarked(source: str, packages: set[str]) -> list[str]:
    """Return the tests that skip where one of the packages is missing and do not have the mark."""
    tree = ast.parse(source)
    if any(isinstance(node, ast.Assign) and _names(node.targets[0]) == {"pytestmark"} and _is_marked(node.value) for node in tree.body):
        return []
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    at_import = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    if any(_skips(node, packages) for node in at_import):
        return ["the whole file"]
    skipping = {name for name, node in functions.items() if _skips(node, packages)}
    while more := {name for name, node in functions.items() if _uses(node) & skipping} - skipping:
        skipping |= more
    unmarked = [name for name in skipping if name.startswith("test") and not any(map(_is_marked, functions[name].decorator_list))]
    return sorted(unmarked)


def _skips(node: ast.AST, packages: set[str]) -> bool:
    return any(argument.split(".")[0] in packages for argument in _skipped(node))


def _skipped(node: ast.AST) -> Iterator[str]:
    for one in ast.walk(node):
        if isinstance(one, ast.Call) and "importorskip" in _names(one.func) and one.args and isinstance(one.args[0], ast.Constant):
            yield str(one.args[0].value)


def _uses(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Return the fixtures and functions that a function takes and calls."""
    every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    called = [node.func.id for node in ast.walk(function) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return {argument.arg for argument in every} | set(called)


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}


def _is_marked(node: ast.AST) -> bool:
    """Whether a test is run with the extras, or is one of the long ones, which `.ci/run` leaves to `-m slow`."""
    return bool({"extras", "slow"} & {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)})


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("test_*.py")), ids=lambda path: path.stem)
def test_what_needs_an_extra_has_the_mark(path: Path) -> None:
    found = _unmarked(path.read_text(encoding="utf-8"), _packages())
    if path.name in RUN_ELSEWHERE:
        assert path.name in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
        return
    assert not found, f"{path.name}: {', '.join(found)}: skipped without an extra, so mark it: pytestmark = pytest.mark.extras"


def test_the_extras_are_those_that_are_known_here() -> None:
    assert {"torch", "pandas", "pyarrow", "xarray", "optuna", "dask", "distributed", "loky"} <= _packages()
    found = re.search(r"'\.\[test,([a-z,]+)\]' &&\n +tests .* -m \"extras", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert found is not None
    assert set(found[1].split(",")) == set(EXTRAS)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("torch = pytest.importorskip('torch')\ndef test_a(): pass", ["the whole file"]),
        ("pytest.importorskip('torch.nn')\npytestmark = pytest.mark.skipif(True)", ["the whole file"]),
        ("def test_a():\n    pytest.importorskip('dask')", ["test_a"]),
        ("@pytest.mark.parametrize('x', [1])\ndef test_a(x):\n    pytest.importorskip('dask')", ["test_a"]),
        ("@pytest.fixture\ndef cluster():\n    pytest.importorskip('dask')\ndef test_a(cluster): pass\ndef test_b(): pass", ["test_a"]),
        ("def made():\n    return pytest.importorskip('xarray')\ndef test_a():\n    made()", ["test_a"]),
        ("def test_a():\n    from pytest import importorskip\n    importorskip('optuna')", ["test_a"]),
    ],
)
def test_a_file_without_the_mark_is_found(source: str, found: list[str]) -> None:
    """Negative control."""
    assert _unmarked(source, _packages()) == found


@pytest.mark.parametrize(
    "source",
    [
        "pytestmark = pytest.mark.extras\ntorch = pytest.importorskip('torch')",
        "pytestmark = [pytest.mark.slow, pytest.mark.extras]\ntorch = pytest.importorskip('torch')",
        "@pytest.mark.extras\ndef test_a():\n    pytest.importorskip('dask')",
        "@pytest.mark.slow\ndef test_a():\n    pytest.importorskip('dask')",
        "pytest.importorskip('nbformat')",
    ],
)
def test_a_file_with_the_mark_is_fine(source: str) -> None:
    assert _unmarked(source, _packages()) == []
