"""Notebooks are stored without output, and run from top to bottom."""

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
nbformat = pytest.importorskip("nbformat", reason="needs the extra `notebooks`: pip install -e '.[test,notebooks]'")
nbclient = pytest.importorskip("nbclient", reason="needs the extra `notebooks`: pip install -e '.[test,notebooks]'")
pytest.importorskip("ipykernel", reason="needs the extra `notebooks`: pip install -e '.[test,notebooks]'")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_stored_without_output(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_its_pictures(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    if any("import torch" in cell.source for cell in notebook.cells if cell.cell_type == "code"):
        pytest.importorskip("torch", reason="needs the extra `train`: pip install -e '.[test,notebooks,train]'")
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert any("text/html" in output.get("data", {}) for output in outputs)


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS
