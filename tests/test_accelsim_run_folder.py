"""Run folders: what is written is read back, all or nothing, and nothing odd is believed."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from made_reports import design_report, error_report, provenance, trial_report

from accelsim import DesignReport, ErrorReport, RunFolderError, TrialReport, load_report
from accelsim.report import run_folder
from accelsim.report.difference import compare, diff
from accelsim.report.record_codec import arrays_of, decoded, encoded
from accelsim.report.run_folder import save_report, save_reports


def test_each_kind_of_report_comes_back_as_it_was(tmp_path: Path) -> None:
    for name, report in (("e", error_report()), ("t", trial_report()), ("d", design_report())):
        back = load_report(report.save(tmp_path / name))
        assert type(back) is type(report)
        assert back.to_json() == report.to_json()
        assert str(back) == str(report)
        assert back.provenance == report.provenance
        assert all(np.array_equal(back.arrays()[key], value) for key, value in report.arrays().items())


def test_fields_that_the_json_leaves_out_come_back_too(tmp_path: Path) -> None:
    back = load_report(error_report().save(tmp_path / "run"))
    assert isinstance(back, ErrorReport)
    assert back.meaning == ("programming error 0.01 of 25 uS = 250 nS",)
    assert back.details == {"rank": 3.0}


def test_values_that_are_not_finite_or_absent_come_back(tmp_path: Path) -> None:
    error = load_report(error_report(rel_error_estimate=np.inf, by_output=None, accuracy_clean=None, mse_rel=np.nan).save(tmp_path / "e"))
    assert isinstance(error, ErrorReport)
    assert error.rel_error_estimate == np.inf
    assert np.isnan(error.mse_rel)
    assert error.by_output is None
    assert error.accuracy_clean is None
    infeasible = design_report(
        feasible=False, design=None, mse=None, read_power_w=None, baseline=None, mc=None, floor=1e-3, gap=3e-4, levers=("l",)
    )
    design = load_report(infeasible.save(tmp_path / "d"))
    assert isinstance(design, DesignReport)
    assert design.design is None
    assert not (tmp_path / "d" / "design.toml").exists()


def test_a_design_in_a_run_folder_reads_back(tmp_path: Path) -> None:
    from accelsim import Design

    report = design_report()
    folder = report.save(tmp_path / "run")
    assert Design.from_toml(folder / "design.toml") == report.design
    back = load_report(folder)
    assert isinstance(back, DesignReport)
    assert isinstance(back.mc, TrialReport)


def test_the_files_are_the_ones_promised(tmp_path: Path) -> None:
    folder = save_report(design_report(), tmp_path / "run", command=["accelsim", "optimize"], figure=True)
    assert sorted(os.listdir(folder)) == [
        "arrays.npz", "design.toml", "figure.png", "figure.svg", "manifest.json", "record.json", "report.json", "spec.toml", "table.csv",
    ]  # fmt: skip
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["command"] == ["accelsim", "optimize"]
    assert {"accelsim", "python", "numpy", "scipy", "numba"} <= set(manifest["versions"])
    assert (folder / "spec.toml").read_text() == provenance().spec_toml
    table = (folder / "table.csv").read_text().splitlines()
    assert table[0] == "read_power_w,mse"
    assert len(table) == 42


def test_the_name_of_a_layer_cannot_break_the_table(tmp_path: Path) -> None:
    odd = 'a,"b"\nc'
    folder = error_report(by_layer={odd: 0.0123}).save(tmp_path / "run")
    assert '"a,""b""\nc",0.0123,1.0,' in (folder / "table.csv").read_text()
    assert load_report(folder).to_dicts()[0]["layer"] == odd


def test_a_run_folder_is_never_overwritten(tmp_path: Path) -> None:
    error_report().save(tmp_path / "run")
    with pytest.raises(RunFolderError, match="run folder already; give another name"):
        trial_report().save(tmp_path / "run")


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="other things in it"):
        error_report().save(tmp_path)
    assert os.listdir(tmp_path) == ["precious.txt"]


def test_an_empty_folder_may_be_filled_and_parents_are_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    load_report(error_report().save(tmp_path / "empty"))
    load_report(error_report().save(tmp_path / "a" / "b"))


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunFolderError, match="give"):
            error_report().save(target)
    assert os.listdir(tmp_path) == ["file"]


def test_a_failure_halfway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "csv_text", full)
    with pytest.raises(RunFolderError, match="No space left on device"):
        error_report().save(tmp_path / "run")
    assert os.listdir(tmp_path) == []


def test_an_interrupt_halfway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_folder, "csv_text", interrupt)
    with pytest.raises(KeyboardInterrupt):
        error_report().save(tmp_path / "run")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["spec.toml", "report.json", "record.json", "arrays.npz"])
def test_a_file_that_was_changed_or_lost_is_noticed(tmp_path: Path, name: str) -> None:
    folder = trial_report().save(tmp_path / "run")
    with (folder / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(RunFolderError, match=f"{name} is not as it was written"):
        load_report(folder)
    (folder / name).unlink()
    with pytest.raises(RunFolderError, match=f"{name} is missing"):
        load_report(folder)


def _forged(folder: Path, name: str, content: bytes) -> Path:
    """Change a file and its sha256 in the manifest."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"][name] = run_folder.sha256_of(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mse": "high"}, "mse: need float, got str"),
        ({"mse": None}, "mse: need float, got NoneType"),
        ({"n_trials": True}, "n_trials: need int, got bool"),
        ({"n_trials": 1.5}, "n_trials: need int"),
        ({"accuracy_ci": [0.1]}, "accuracy_ci: need 2 values, got 1"),
        ({"extra": 1}, "missing or unknown: extra"),
        ({"losses": [0.1]}, "losses: the array is missing"),
        ({"provenance": []}, "fields missing or unknown"),
        ({"mse": 99.0}, "contradict each other"),
    ],
)
def test_a_forged_record_is_refused_field_by_field(tmp_path: Path, change: dict, message: str) -> None:
    folder = trial_report().save(tmp_path / "run")
    record = json.loads((folder / "record.json").read_text())
    record["fields"] |= change
    with pytest.raises(RunFolderError, match=message):
        load_report(_forged(folder, "record.json", json.dumps(record).encode()))


@pytest.mark.parametrize("content", [b"", b"[1]", b"{" * 100_000, b'{"a":' * 100_000, b'{"kind": NaN}', b"\xff\xfe"])
def test_what_is_not_json_of_ours_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = trial_report().save(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"record\.json"):
        load_report(_forged(folder, "record.json", content))


def test_pickled_or_damaged_arrays_are_refused(tmp_path: Path) -> None:
    folder = trial_report().save(tmp_path / "run")
    np.savez(tmp_path / "objects.npz", losses=np.array([{}], dtype=object))
    for content in ((tmp_path / "objects.npz").read_bytes(), b"PK\x03\x04", b"no zip"):
        with pytest.raises(RunFolderError, match=r"arrays\.npz is damaged"):
            load_report(_forged(folder, "arrays.npz", content))


def test_a_number_beyond_floats_is_refused_by_its_field() -> None:
    report = error_report()
    record = encoded(report)
    with pytest.raises(RunFolderError, match="mse: need a number within floats"):
        decoded(ErrorReport, record | {"mse": 10**400}, arrays=arrays_of(report))


def test_what_is_no_run_folder_is_named_so(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no such folder"):
        load_report(tmp_path / "nowhere")
    with pytest.raises(RunFolderError, match=r"it has no manifest\.json"):
        load_report(tmp_path)
    for manifest in ('{"schema": 2}', '{"schema": 1, "kind": ["error"]}'):
        (tmp_path / "manifest.json").write_text(manifest)
        with pytest.raises(RunFolderError, match="need schema 1"):
            load_report(tmp_path)


def test_a_folder_of_runs_names_them(tmp_path: Path) -> None:
    folder = save_reports({"predicted": error_report(), "trials": trial_report()}, tmp_path / "both")
    with pytest.raises(RunFolderError, match="holds the runs predicted, trials; name one of them"):
        load_report(folder)
    assert isinstance(load_report(folder / "trials"), TrialReport)


def test_equal_runs_have_no_difference(tmp_path: Path) -> None:
    a, b = error_report().save(tmp_path / "a"), error_report(elapsed_s=99.0).save(tmp_path / "b")
    found = compare(a, b)
    assert (found.question, found.versions, found.spec, found.answers) == ((), (), (), ())
    assert "in both" in diff(a, b)


def test_a_difference_names_leaf_number_and_interval(tmp_path: Path) -> None:
    from accelsim import Accelerator

    changed = Accelerator.preset("memse", set=["cell.error_rel=0.02"])
    other = provenance(spec_toml=changed.to_toml(), spec_digest=changed.digest, seed=8)
    a = error_report().save(tmp_path / "a")
    b = error_report(provenance=other, mse=0.0125, by_layer={"conv1": 0.0125}).save(tmp_path / "b")
    found = compare(a, b)
    assert found.spec == (("cell.programming.error_rel", 0.01, 0.02),)
    assert found.question == (("seed", 7, 8),)
    assert ("by_layer.conv1", 0.002, 0.0125) in found.answers
    assert "within its 95 % interval" in found.verdict
    assert "+1.63 %" in str(found)


def test_a_difference_beyond_the_interval_is_said_loudly(tmp_path: Path) -> None:
    a, b = trial_report().save(tmp_path / "a"), trial_report(mse=0.014).save(tmp_path / "b")
    assert "BEYOND its 95 % interval" in diff(a, b)
