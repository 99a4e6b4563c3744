"""What `import accelsim` brings in, what it exports, and what it says to a stranger's `devices`."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import accelsim
from accelsim import _siblings

SLOW = ("numba", "scipy", "onnx", "matplotlib", "simpy", "pandas")
ROOT = Path(accelsim.__file__).parents[1]


def _run(code: str, *, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd or ROOT, check=False, timeout=120)


@pytest.mark.parametrize("statement", ["import accelsim", "import accelsim.cli; accelsim.cli.main(['--help'])"])
def test_no_slow_library_is_imported(statement: str) -> None:
    ended = _run(f"import sys; {statement}; print(sorted(set(sys.modules) & set({SLOW!r})), file=sys.stderr)")
    assert ended.stderr.strip() == "[]"


def test_every_export_is_there_and_named_once() -> None:
    assert sorted(accelsim.__all__) == sorted([*accelsim._HOME, "__version__"])
    for name in accelsim.__all__:
        assert getattr(accelsim, name) is not None
    assert set(accelsim.__all__) <= set(dir(accelsim))


def test_type_checkers_see_the_same_exports() -> None:
    tree = ast.parse(Path(accelsim.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in ast.walk(block) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == accelsim._HOME


def test_no_export_bears_the_name_of_a_submodule() -> None:
    inside = {path.stem for path in Path(accelsim.__file__).parent.iterdir()}
    assert not inside & set(accelsim.__all__)


def test_the_function_is_exported_whatever_was_imported_before() -> None:
    code = (
        "import accelsim.optimizer.problem, accelsim.prediction, accelsim.placement; from accelsim import optimize, predict, place;"
        "assert callable(optimize) and callable(predict) and callable(place)"
    )
    assert _run(code).returncode == 0


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'optimise'"):
        accelsim.optimise  # noqa: B018


@pytest.mark.parametrize("kind", ["file", "package", "folder"])
def test_a_stranger_named_devices_is_pointed_at(tmp_path: Path, kind: str) -> None:
    if kind == "file":
        (tmp_path / "devices.py").write_text("raise SystemExit('was imported')")
    else:
        (tmp_path / "devices").mkdir()
        if kind == "package":
            (tmp_path / "devices" / "__init__.py").write_text("raise SystemExit('was imported')")
    only_ours_later = f"import sys; sys.path.append({str(ROOT)!r}); sys.path.insert(0, {str(tmp_path)!r}); import accelsim"
    ended = _run(only_ours_later, cwd=tmp_path)
    if kind == "folder":  # a folder without __init__.py gives way to a package
        assert ended.returncode == 0, ended.stderr
        return
    assert ended.returncode == 1
    assert "hides the one of accelsim" in ended.stderr
    assert str(tmp_path) in ended.stderr.splitlines()[-1]


def test_a_sibling_of_another_version_is_refused() -> None:
    with pytest.raises(ImportError, match=r"is of accelsim 0\.1\.0, but accelsim 9\.9\.9 is running"):
        _siblings.check_siblings("9.9.9")


def test_a_missing_sibling_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_siblings, "SIBLINGS", ("no_such_package_of_ours",))
    with pytest.raises(ImportError, match=r"'no_such_package_of_ours', which comes with accelsim .* is missing"):
        _siblings.check_siblings("0.1.0")
