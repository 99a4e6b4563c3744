"""Searches: what they ask, that the closed form is inside, that they are the same however they are computed, and wrong questions."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accelsim import Accelerator, ExploreReport, RunFolderError, Span, SpecError, explore, load_report, optimize, place, predict
from accelsim.cli import main
from accelsim.exploring.aims import limits_of
from accelsim.exploring.trial import best_design
from accelsim.report.explore_report import ExploreTrial
from tests.digits import digits_network, digits_samples
from tests.test_cli_sweep import asked as asked

optuna = pytest.importorskip("optuna", reason="needs the extra `explore`: pip install -e '.[test,explore]'")
pytestmark = pytest.mark.extras
ROOT = Path(__file__).parents[1]
CALIBRATION = digits_samples()[100:164]
SPACE = {"cell.error_rel": Span(low=0.001, high=0.01, scale="log"), "mapping.levels": [16, 64, None]}


def search(**changes: Any) -> ExploreReport:
    """Return a small search, changed."""
    given: dict[str, Any] = {
        "space": SPACE, "seed": 7, "calibration": CALIBRATION, "n_trials": 6, "batch": 3, "options": {"method": "adjoint"},
        "scales": "given",
    } | changes  # fmt: skip
    return explore(digits_network("mlp"), Accelerator.preset("memse"), digits_samples()[:4], **given)


def records(report: ExploreReport) -> list[dict[str, Any]]:
    return [trial.record() for trial in report.trials]


# answers


def test_a_trial_is_the_prediction_at_the_closed_forms_design() -> None:
    report = search(n_trials=2, batch=2, scales="layer")
    trial = report.trials[1]
    design = report.design(trial)
    assert design is not None
    plan = place(digits_network("mlp"), report.accelerator(trial), calibration=CALIBRATION, design=design)
    alone = predict(plan, digits_samples()[:4], seed=7, method="adjoint")
    assert trial.objectives == {"error": alone.mse_rel, "power": alone.read_power_w}


def test_conductances_follow_from_optimize_within_the_share_of_the_power() -> None:
    plan = place(digits_network("mlp"), Accelerator.preset("memse"), calibration=CALIBRATION)
    samples = digits_samples()[:4]
    full = predict(plan, samples, seed=7, method="adjoint").read_power_w
    found = best_design(plan, samples, seed=7, scales="layer", power_share=0.4)
    expected = optimize(plan, samples, verify=samples, seed=7, power_budget_w=0.4 * full, mc_max_trials=0).design
    assert expected is not None
    assert found.to_toml() == expected.to_toml()


def test_conductances_are_searched_only_when_asked_for() -> None:
    space = {"mapping.g_used_siemens": Span(low="5 uS", high="25 uS")}
    with pytest.raises(SpecError, match=r"conductances follow from the closed form \(scales = layer\); leave it out"):
        search(space=space, scales="layer")
    report = search(space=space, n_trials=3)
    assert [t.design_toml for t in report.trials] == ["", "", ""]
    assert list(report.space) == ["mapping.g_used_siemens"]
    free = search(space={"mapping.levels": [16, 64]}, n_trials=1, objectives=("error",), scales="layer")
    assert list(free.space) == ["mapping.levels"]  # nothing that costs power counts, so no share of it is searched


def test_energy_latency_and_area_come_from_the_chip() -> None:
    report = explore(
        digits_network("mlp"), Accelerator.preset("isaac").with_set("cell.programming.kind=state_independent", "cell.error_rel=0.001"),
        digits_samples()[:2], space={"mapping.replicas": [1, 2]}, seed=7, n_trials=2, batch=2, scales="given",
        objectives=("latency", "energy", "area"), options={"method": "adjoint"}, calibration=CALIBRATION,
    )  # fmt: skip
    assert all(trial.objectives["latency"] > 0.0 and trial.objectives["area"] > 0.0 for trial in report.trials)


def test_a_search_finds_better_than_chance() -> None:
    """Error falls in every field, so the best of a search is near the corner; the median of random ones is not."""
    space = {"cell.error_rel": Span(low=0.001, high=0.1, scale="log")}
    found = search(space=space, n_trials=40, batch=4, objectives=("error",))
    last = [t.values["cell.error_rel"] for t in found.trials[-12:]]
    random = search(space=space, n_trials=40, batch=4, objectives=("error",), sampler="random")
    assert np.median(last) < 0.2 * np.median([t.values["cell.error_rel"] for t in random.trials])


# the same search


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_the_same_seed_searches_the_same_on_any_executor(sampler: str) -> None:
    given = {"sampler": sampler, "n_trials": 24, "batch": 4, "constraints": ["accuracy >= 0.5"]}
    alone = search(**given)
    with ThreadPoolExecutor(2) as threads:
        assert records(search(**given, executor=threads)) == records(alone)
    assert records(search(**given, seed=8)) != records(alone)


def test_a_search_goes_on_where_it_stopped_and_a_longer_one_begins_with_it(tmp_path: Path) -> None:
    whole = search(n_trials=9, out=tmp_path / "whole")

    def stop(n: int, of: int) -> None:
        if n == 6:
            raise KeyboardInterrupt

    part = search(n_trials=9, out=tmp_path / "part", progress=stop)
    assert part.stopped_by == "interrupt"
    rest = search(n_trials=9, out=tmp_path / "part")
    assert (rest.n_computed, rest.n_reused) == (3, 6)
    assert records(rest) == records(whole)
    longer = search(n_trials=12, out=tmp_path / "part")
    assert records(longer)[:9] == records(whole)


def test_a_search_killed_while_it_asked_or_told_goes_on_the_same(tmp_path: Path) -> None:
    whole = records(search(n_trials=6, out=tmp_path / "whole"))
    journal = (tmp_path / "whole" / "journal.log").read_bytes()
    first = journal.index(b"\n") + 1
    for n_bytes in np.linspace(first, len(journal) - 1, 7).astype(int):  # it is appended to: a kill leaves a beginning, with half a line
        folder = tmp_path / f"part{n_bytes}"
        folder.mkdir()
        (folder / "journal.log").write_bytes(journal[:n_bytes])
        assert records(search(n_trials=6, out=folder)) == whole, n_bytes


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [*lines[:4], b"3", *lines[5:]], lambda lines: [line.replace(b'"op_code"', b'"opcode"') for line in lines],
        lambda lines: [line.replace(b"mapping.levels", b"mapping.level") for line in lines],
    ],
)  # fmt: skip
def test_a_damaged_journal_is_one_message_and_loses_no_answer(tmp_path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    whole = search(n_trials=3, out=tmp_path / "search")
    journal = tmp_path / "search" / "journal.log"
    journal.write_bytes(b"\n".join(change(journal.read_bytes().split(b"\n"))))
    with pytest.raises(RunFolderError, match=r"journal\.log is damaged \(.*\); remove it, and the same search computes only what"):
        search(n_trials=3, out=tmp_path / "search")
    journal.unlink()
    again = search(n_trials=3, out=tmp_path / "search")
    assert records(again) == records(whole)
    assert again.n_computed == 0


def test_a_journal_elsewhere_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "secret").write_text("{}\n")
    (tmp_path / "search" / "journal.log").symlink_to(tmp_path / "secret")
    with pytest.raises(RunFolderError, match=r"search: journal\.log is a link that leads out"):
        search(out=tmp_path / "search")


def test_a_journal_that_is_no_file_does_not_wait_for_ever(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    os.mkfifo(tmp_path / "search" / "journal.log")
    with pytest.raises(RunFolderError, match=r"journal\.log is not a regular file; remove it"):
        search(out=tmp_path / "search")


def test_a_search_that_was_stopped_is_a_page(tmp_path: Path) -> None:
    def stop(n: int, of: int) -> None:
        raise KeyboardInterrupt

    found = search(n_trials=6, out=tmp_path / "search", progress=stop)
    assert records(load_report(tmp_path / "search")) == records(found)  # type: ignore[arg-type]


def test_optuna_reads_the_journal(tmp_path: Path) -> None:
    report = search(out=tmp_path / "search", constraints=["accuracy >= 0.5"])
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "search" / "journal.log")))
    study = optuna.load_study(study_name="accelsim", storage=storage)
    assert [t.values for t in study.trials] == [list(t.objectives.values()) for t in report.trials]
    assert {t.number for t in study.best_trials} == {t.number for t in report.front}


# the front


def _trial(number: int, error: float, power: float, *, feasible: bool = True) -> ExploreTrial:
    objectives = {"error": error, "power": power}
    return ExploreTrial(number=number, values={}, status="done", objectives=objectives, feasible=feasible, design_toml="", error="")


def test_the_front_is_what_no_feasible_trial_beats() -> None:
    from dataclasses import replace

    rng = np.random.default_rng(5)
    trials = tuple(_trial(i, *map(float, rng.integers(0, 12, 2)), feasible=bool(i % 5)) for i in range(60))
    report = replace(search(n_trials=1), trials=trials)
    good = [t for t in trials if t.feasible]
    points = {tuple(t.objectives.values()) for t in good}
    expected = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}
    assert {tuple(t.objectives.values()) for t in report.front} == expected
    assert len(report.front) == len(expected)


def test_a_report_is_saved_loaded_and_drawn(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    for objectives in (("error", "power"), ("error",), ("error", "accuracy", "power")):
        report = search(objectives=objectives, constraints=["accuracy >= 99 %"] if len(objectives) == 3 else [])
        loaded = load_report(report.save(tmp_path / "-".join(objectives)))
        assert loaded.to_json_dict() == report.to_json_dict()
        assert report.plot(Figure().subplots()).get_title(loc="left")
        assert "<table>" in report._repr_html_()


def test_constraints_say_by_how_much_they_are_missed() -> None:
    area, accuracy = limits_of(["area <= 20 mm2", "accuracy >= 90 %"])
    assert area.violation(30e-6) == pytest.approx(0.5)
    assert accuracy.violation(0.95) == pytest.approx(-0.05 / 0.9)


# wrong questions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": {"cell.eror_rel": [1]}}, r"space: cell\.eror_rel: unknown field; nearest: cell\.programming\.error_rel"),
        ({"space": {}}, "need a path and values"),
        ({"objectives": ("eror",)}, "objectives: 'eror': need error .*; nearest: error"),
        ({"objectives": ()}, "objectives: "),
        ({"objectives": ("error", "error")}, "the same twice"),
        ({"constraints": ["accuracy = 3"]}, "need NAME <= VALUE or NAME >= VALUE"),
        ({"constraints": ["acuracy >= 3"]}, "nearest: accuracy"),
        ({"constraints": ["area <= 3 uS"]}, "constraints: area <= 3 uS: "),
        ({"n_trials": 0}, "n_trials: 0: need a whole number"),
        ({"batch": True}, "batch: true: need a whole number"),
        ({"sampler": "grid"}, r"sampler: 'grid': need tpe \| nsga2 \| random"),
        ({"scales": "all"}, "scales: 'all': need given"),
        ({"options": {"methd": 1}}, "options: methd: predict takes no such option; nearest: method"),
    ],
)
def test_a_wrong_search_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        search(out=tmp_path / "search", **change)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_search_is_refused(tmp_path: Path) -> None:
    search(n_trials=3, out=tmp_path / "search")
    with pytest.raises(RunFolderError, match="holds another search"):
        search(n_trials=3, out=tmp_path / "search", seed=8)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="is a file"):
        search(out=tmp_path / "file")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes").write_text("")
    with pytest.raises(RunFolderError, match="with other things in it"):
        search(out=tmp_path / "other")
    with pytest.raises(RunFolderError, match="cannot make the search's folder"):
        search(out="/proc/search")


# the command line

FILE = """
network = "net.onnx"
inputs = "x.npz"
calibration = "c.npz"
seed = 7
out = "search"
objectives = ["error", "power"]
constraints = ["accuracy >= 0.5"]
n_trials = 4
batch = 2
[space]
cell.error_rel = { low = 0.001, high = 0.01, scale = "log" }
[options]
method = "adjoint"
"""


def test_explore_answers_on_the_command_line(asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked.write_text(FILE)
    assert main(["explore", str(asked)]) == 0
    first = capsys.readouterr()
    assert "4 by tpe: 4 computed" in first.out
    assert "optuna-dashboard" in first.err
    assert main(["explore", str(asked), "--trials", "6"]) == 0
    assert "2 computed, 4 reused" in capsys.readouterr().out
    asked.write_text(FILE.replace(">= 0.5", ">= 1.5").replace('out = "search"', ""))
    assert main(["explore", str(asked)]) == 1
    assert "NO trial meets the constraints" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[space]", "[spce]", "spce: unknown key; nearest: space"),
        ('"error", "power"', '"error", "powr"', "nearest: power"),
        ("seed = 7", "run = 'predict'", "run: unknown key"),
        ("cell.error_rel", "cell.eror_rel", "space: cell.eror_rel: unknown field"),
    ],
)
def test_a_wrong_file_gives_one_message(
    asked: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    asked.write_text(FILE.replace(old, new))
    assert main(["explore", str(asked)]) == 2
    assert message in capsys.readouterr().err


def test_without_optuna_it_says_what_to_install(
    asked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked.write_text(FILE)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["explore", str(asked)]) == 2
    assert "explore needs Optuna: pip install 'accelsim[explore]'" in capsys.readouterr().err


def test_a_killed_search_goes_on_the_same(asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked.write_text(FILE.replace("n_trials = 4", 'n_trials = 10\nscales = "given"'))
    main(["explore", str(asked), "--out", str(tmp_path / "whole"), "--json"])
    whole = capsys.readouterr().out
    command = [sys.executable, "-m", "accelsim", "explore", str(asked)]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    points = tmp_path / "search" / "trials" / "points"
    _wait_for(lambda: len(list(points.glob("*.json"))) >= 3)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    main(["explore", str(asked), "--json"])
    assert _trials(capsys.readouterr().out) == _trials(whole)


def _trials(text: str) -> Any:
    import json

    return json.loads(text)["trials"]


def _wait_for(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 120.0
    while not true():
        assert time.monotonic() < ends, "it did not come to pass"
        time.sleep(0.02)
