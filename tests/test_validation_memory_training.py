"""The table of training for unreliable memory: its summary, its verdict, and that it is made, and goes on, by one command."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_training_run import blobs

from validation import memory_training as study
from validation.__main__ import main
from validation.memory_training import Way, judged, narrowed, summary
from validation.tables import Row

torch = pytest.importorskip("torch", reason="needs the extra `train`: pip install -e '.[test,train]'")
pytestmark = pytest.mark.extras
TINY = replace(study.QUICK[0], layers="conv 6 k3 s2, dense 24", std=1.0, n_train=None, n_first=2, n_more=2, seeds=(1, 2))


def row(seed: int, method: str, accuracy: float, energy: float = 1.0) -> Row:
    return {
        "data": "d", "seed": seed, "method": method, "budget_rel": energy, "n_domains": "", "energy_exponential_rel": energy,
        "energy_14nm_rel": 0.9, "accuracy": accuracy, "draw_std": 0.001, "n_draws": 20,
    }  # fmt: skip


def test_points_are_lost_against_the_reliable_network_of_the_same_seed() -> None:
    rows = [row(1, "reliable", 0.90), row(2, "reliable", 0.80), row(1, "lanmax", 0.897, 0.25), row(2, "lanmax", 0.795, 0.25)]
    lanmax = next(r for r in summary(rows) if r["method"] == "lanmax")
    assert (lanmax["lost_points"], lanmax["factor_exponential"], lanmax["factor_14nm"]) == ("0.40", "4.00", "1.11")
    assert float(lanmax["lost_half_width"]) == pytest.approx(12.706 * np.std([0.3, 0.5], ddof=1) / np.sqrt(2), abs=0.01)
    assert judged(summary(rows))["d"]["reached"]


@pytest.mark.parametrize(("accuracy", "energy"), [(0.89, 0.25), (0.90, 0.35)])
def test_the_published_factor_needs_both_energy_and_accuracy(accuracy: float, energy: float) -> None:
    rows = [row(1, "reliable", 0.90), row(1, "lanmax", accuracy, energy)]
    assert not judged(summary(rows))["d"]["reached"]


def test_a_narrower_network_has_as_many_bits_as_the_energy_pays_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "_all_images", lambda name: blobs())
    layers, share = narrowed(TINY, 0.3)
    assert 0.2 < share <= 0.3
    assert layers != TINY.layers


def test_one_command_makes_the_table_and_goes_on_where_it_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ways = (Way(name="reliable"), *(Way(name=name, energy_rel=0.3) for name in ("lanmax", "closed_form_untrained")))
    monkeypatch.setattr(study, "_all_images", lambda name: blobs())
    monkeypatch.setattr(study, "QUICK", (replace(TINY, ways=ways, more=(Way(name="narrower", energy_rel=0.3),)),))
    arguments = ["memory_training", "--quick", "--out", str(tmp_path), "--work", str(tmp_path / "work")]
    assert main(arguments) in (0, 1)
    cells = tmp_path / "memory_training_cells.csv"
    whole = cells.read_bytes()
    rows = list(csv.DictReader(cells.open()))
    assert [(r["seed"], r["method"]) for r in rows] == [
        (seed, way) for more in (("reliable", "lanmax", "closed_form_untrained"), ("narrower",)) for seed in "12" for way in more
    ]
    assert all(float(r["energy_exponential_rel"]) == pytest.approx(0.3, abs=1e-3) for r in rows if r["method"] == "lanmax")
    lines = whole.splitlines(keepends=True)
    cells.write_bytes(b"".join([*lines[:3], *lines[4:]]))  # one cell is missing
    main(arguments)
    again = {r["cell"]: r for r in csv.DictReader(cells.open())}
    assert again == {r["cell"]: r for r in rows}
    assert "beyond_bar" in capsys.readouterr().out


@pytest.mark.slow
def test_the_quick_study_saves_a_third_within_a_point(tmp_path: Path) -> None:
    """A fifth of Fashion-MNIST, one seed: minutes. Learned rates lose less than one rate for all, which is the negative control."""
    if not study.FASHION_FOLDER.is_dir():
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    main(["memory_training", "--quick", "--out", str(tmp_path), "--work", str(tmp_path / "work")])
    lost = {r["method"]: float(r["lost_points"]) for r in csv.DictReader((tmp_path / "memory_training.csv").open())}
    assert lost["lanmax"] < 1.5
    assert lost["uniform"] > lost["lanmax"] + 1.0
