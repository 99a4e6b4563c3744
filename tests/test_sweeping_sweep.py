"""Sweeps: which points there are, what is computed again, what is kept, and every wrong question as one message."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accelsim import Accelerator, RunFolderError, SamplesError, Span, SpecError, SweepReport, load_report, place, predict, sweep
from accelsim.sweeping import sweep as sweeping
from accelsim.sweeping.axes import axes_of, laid_out
from tests.digits import digits_network, digits_samples
from tests.sweeps import AXES, OPTIONS, answers, counted, small_sweep, wrong_at

CHIP = Accelerator.preset("memse")


def points_of(axes: dict[str, Any], **how: Any) -> list[dict[str, Any]]:
    return list(laid_out(axes_of(axes, CHIP, options=("method",)), **({"layout": "grid", "n_points": None, "seed": 7} | how)))


# points


def test_a_grid_has_every_combination_and_its_last_axis_moves_first() -> None:
    found = points_of({"cell.error_rel": [0.1, 0.2], "mapping.levels": [16, 32, None]})
    assert [tuple(p.values()) for p in found] == [(0.1, 16), (0.1, 32), (0.1, None), (0.2, 16), (0.2, 32), (0.2, None)]


def test_quantities_end_in_si_and_values_given_twice_count_once() -> None:
    found = points_of({"mapping.g_used_siemens": ["10 uS", 1e-5, "20 uS"]})
    assert [p["mapping.g_used_siemens"] for p in found] == [1e-5, 2e-5]


def test_a_range_is_cut_evenly_in_its_value_or_its_logarithm() -> None:
    linear = points_of({"cell.error_rel": {"low": 0.01, "high": 0.03, "n": 3}})
    log = points_of({"cell.error_rel": Span(low=0.01, high=0.04, n=3, scale="log")})
    np.testing.assert_allclose([p["cell.error_rel"] for p in linear], [0.01, 0.02, 0.03])
    np.testing.assert_allclose([p["cell.error_rel"] for p in log], [0.01, 0.02, 0.04])


def test_a_range_of_a_whole_number_has_whole_numbers() -> None:
    assert [p["mapping.levels"] for p in points_of({"mapping.levels": Span(low=2, high=6, n=3)})] == [2, 4, 6]
    drawn = points_of({"mapping.levels": Span(low=2, high=5)}, layout="random", n_points=400)
    counts = np.bincount([p["mapping.levels"] for p in drawn], minlength=6)[2:]
    assert counts.sum() == 400
    assert np.all(np.abs(counts - 100) < 4.5 * np.sqrt(400 * 0.25 * 0.75))


@pytest.mark.parametrize("layout", ["random", "sobol"])
def test_a_longer_design_begins_with_the_shorter(layout: str) -> None:
    axes = {"cell.error_rel": Span(low=1e-3, high=1e-1, scale="log"), "mapping.g_used_siemens": Span(low="5 uS", high="25 uS")}
    short, long = (points_of(axes, layout=layout, n_points=n) for n in (5, 24))
    assert short == long[:5]
    assert points_of(axes, layout=layout, n_points=5, seed=8) != short


def test_a_sobol_design_fills_every_part_of_a_range_once() -> None:
    drawn = points_of({"cell.error_rel": Span(low=1.0, high=2.0), "mapping.levels": Span(low=2, high=17)}, layout="sobol", n_points=16)
    assert sorted(int(16 * (p["cell.error_rel"] - 1.0)) for p in drawn) == list(range(16))
    assert sorted(p["mapping.levels"] for p in drawn) == list(range(2, 18))
    at_random = points_of({"cell.error_rel": Span(low=1.0, high=2.0)}, layout="random", n_points=16)
    assert sorted(int(16 * (p["cell.error_rel"] - 1.0)) for p in at_random) != list(range(16))


# answers


def test_a_point_answers_what_predict_answers() -> None:
    report = small_sweep()
    point = report.points[3]
    chip = CHIP.with_set("cell.error_rel=0.005", "mapping.g_used_siemens=25uS")
    plan = place(digits_network("mlp"), chip, calibration=digits_samples()[100:164])
    alone = predict(plan, digits_samples()[:8], seed=7, method="adjoint").to_json_dict()
    assert point.values == {"cell.error_rel": 0.005, "mapping.g_used_siemens": 25e-6}
    assert {name: alone[name] for name in point.answer} == point.answer
    assert report.accelerator(point).digest == chip.digest


def test_the_same_sweep_computes_nothing_again_and_a_wider_one_what_is_new(tmp_path: Path) -> None:
    first = small_sweep(out=tmp_path / "grid")
    again = small_sweep(out=tmp_path / "grid")
    wider = small_sweep(out=tmp_path / "grid", axes={**AXES, "cell.error_rel": [0.001, 0.002, 0.005, 0.01]})
    assert (first.n_computed, first.n_reused) == (6, 0)
    assert (again.n_computed, again.n_reused) == (0, 6)
    assert (wider.n_computed, wider.n_reused) == (2, 6)
    assert answers(again) == answers(first) == answers(wider)[2:]
    assert again.counts == "0 computed, 6 reused"


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"options": {"method": "sketched"}}, {"calibration": digits_samples()[100:150]}, {"run": "evaluate"}]
)
def test_what_an_answer_depends_on_is_in_its_key(tmp_path: Path, change: dict[str, Any]) -> None:
    axes = {"cell.error_rel": [0.01]}
    small_sweep(out=tmp_path / "grid", axes=axes)
    assert small_sweep(out=tmp_path / "grid", axes=axes, **change).n_computed == 1


def test_other_samples_networks_specs_and_versions_have_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(network: str = "mlp", preset: str = "memse", n: int = 8) -> str:
        report = sweep(
            digits_network(network), Accelerator.preset(preset), digits_samples()[:n], seed=7, axes={"cell.error_rel": [0.01]},
            options=OPTIONS, calibration=digits_samples()[100:164],
        )  # fmt: skip
        return report.points[0].key

    keys = [key(), key(network="cnn"), key(preset="memse_compat"), key(n=9)]
    assert key() == keys[0]
    monkeypatch.setattr(sweeping, "__version__", "9.9")
    assert len({*keys, key()}) == 5


def test_all_points_have_common_random_numbers() -> None:
    """Twice the error over twice the range errs alike in the weights: the same draws give the same answer, another seed does not."""
    points = [{"cell.g_max_siemens": g, "mapping.g_used_siemens": g, "cell.error_rel": e} for g, e in ((25e-6, 0.01), (50e-6, 0.01))]
    one, other = answers(small_sweep(axes=None, points=points, options={"method": "corrected"}))
    other_seed = answers(small_sweep(axes=None, points=points, options={"method": "corrected"}, seed=8))[0]
    assert one["mse"] == pytest.approx(other["mse"], rel=1e-6)
    assert abs(other_seed["mse"] / one["mse"] - 1.0) > 1e-4


def test_a_function_is_run_with_options_and_run_again_when_it_is_another(tmp_path: Path) -> None:
    log = tmp_path / "log"
    axes = {"mapping.g_used_siemens": ["10 uS", "20 uS"]}
    given: dict[str, Any] = {"run": counted, "options": {"path": str(log)}, "axes": axes, "out": tmp_path / "grid"}
    report = small_sweep(**given)
    small_sweep(**given)
    assert [p.answer["g_used_siemens"] for p in report.points] == [1e-5, 2e-5]
    assert report.points[0].answer["n_images"] == 8
    assert report.points[0].answer["seed"] == 7
    assert len(log.read_text().split()) == 2
    assert report.run == "tests.sweeps.counted"


def test_an_option_of_the_run_may_be_an_axis() -> None:
    report = small_sweep(axes={"run.method": ["adjoint", "sketched"]}, options={})
    assert [p.answer["method"] for p in report.points] == ["adjoint", "sketched"]


def test_monte_carlo_optimize_and_simulate_run_too(tmp_path: Path) -> None:
    axes = {"cell.error_rel": [0.005, 0.01]}
    trials = small_sweep(run="monte_carlo", axes=axes, options={"max_trials": 40}, out=tmp_path / "mc")
    best = small_sweep(run="optimize", axes={"run.power_budget_w": ["20 uW", "100 uW"]}, options={"mc_max_trials": 0})
    times = sweep(digits_network("mlp"), Accelerator.preset("isaac"), seed=7, run="simulate", axes={"mapping.replicas": [1, 2]})
    assert [p.answer["n_trials"] for p in trials.points] == [40, 40]
    assert best.points[0].answer["mse"] > best.points[1].answer["mse"]
    assert all(p.answer["latency_s"] > 0.0 for p in times.points)
    assert sorted(path.suffix for path in (tmp_path / "mc" / "points").iterdir()) == [".json", ".json"]  # no checkpoints stay


def test_points_that_are_the_same_are_computed_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    points = [{"mapping.g_used_siemens": g} for g in (1e-5, "10 uS")]
    report = small_sweep(run=counted, options={"path": str(log)}, axes=None, points=points)
    assert len(log.read_text().split()) == 1
    assert len(report.done) == 2


# failures


def test_a_point_that_breaks_a_rule_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    axes = {"mapping.g_used_siemens": ["20 uS", "30 uS"]}
    report = small_sweep(axes=axes, out=tmp_path / "grid")
    assert [p.status for p in report.points] == ["done", "failed"]
    assert "need cell.g_min_siemens < g_used_siemens <= cell.g_max_siemens" in report.failed[0].error
    assert small_sweep(axes=axes, out=tmp_path / "grid").counts == "0 computed, 2 reused, 1 failed"


def test_a_point_whose_function_raises_is_recorded_and_tried_again(tmp_path: Path) -> None:
    given = {"run": wrong_at, "options": {}, "axes": {"cell.error_rel": [0.002, 0.005, 0.01]}, "out": tmp_path / "grid"}
    report = small_sweep(**given)
    assert [p.status for p in report.points] == ["done", "failed", "done"]
    assert report.failed[0].error.startswith("ZeroDivisionError: ")
    assert small_sweep(**given).counts == "1 computed, 2 reused, 1 failed"


def test_an_interrupt_gives_what_is_known_and_the_same_sweep_goes_on(tmp_path: Path) -> None:
    def stop_after_two(n: int, n_to_do: int, n_reused: int, left_s: float) -> None:
        if n == 2:
            raise KeyboardInterrupt

    report = small_sweep(out=tmp_path / "grid", progress=stop_after_two)
    assert report.stopped_by == "interrupt"
    assert report.counts == "2 computed, 0 reused, 4 missing"
    assert small_sweep(out=tmp_path / "grid").counts == "4 computed, 2 reused"


def test_progress_tells_points_and_the_time_left() -> None:
    told: list[tuple[int, int, int, float]] = []
    small_sweep(progress=lambda *news: told.append(news))
    assert [news[:3] for news in told] == [(n, 6, 0) for n in range(1, 7)]
    assert told[-1][3] == 0.0
    assert told[0][3] > 0.0


# folders


def test_shards_compute_each_point_once_and_collect_puts_them_together(tmp_path: Path) -> None:
    whole = small_sweep()
    parts = [small_sweep(out=tmp_path / "grid", shard=(i, 4)) for i in (1, 2, 4)]
    assert [len(part.points) for part in parts] == [2, 2, 1]
    assert load_report(tmp_path / "grid").counts == "0 computed, 5 reused, 1 missing"  # type: ignore[attr-defined]
    small_sweep(out=tmp_path / "grid", shard=(3, 4))
    found = load_report(tmp_path / "grid")
    assert isinstance(found, SweepReport)
    assert answers(found) == answers(whole)
    assert [p.values for p in found.points] == [p.values for p in whole.points]


def test_a_report_is_saved_and_loaded_whole(tmp_path: Path) -> None:
    report = small_sweep()
    loaded = load_report(report.save(tmp_path / "run"))
    assert loaded.to_json_dict() == report.to_json_dict()
    assert str(loaded) == str(report)


@pytest.mark.parametrize("harm", [b"", b"{", b'{"schema": 1}', None])
def test_a_damaged_point_is_named_by_collect_and_computed_again_by_a_sweep(tmp_path: Path, harm: bytes | None) -> None:
    report = small_sweep(out=tmp_path / "grid")
    path = tmp_path / "grid" / "points" / f"{report.points[2].key}.json"
    text = path.read_text()
    path.write_bytes(text.replace(f'"mse": {report.points[2].answer["mse"]}', '"mse": 1.0').encode() if harm is None else harm)
    assert path.read_text() != text
    with pytest.raises(RunFolderError, match=rf"{path.name} is damaged .*; remove it and run the sweep again"):
        load_report(tmp_path / "grid")
    again = small_sweep(out=tmp_path / "grid")
    assert again.counts == "1 computed, 5 reused"
    assert answers(again) == answers(report)
    assert "1 damaged point file" in again.provenance.warnings[-1]


def _of_another_version(folder: Path) -> str:
    found = json.loads((folder / "sweep.json").read_text())
    return json.dumps(found | {"schema": 2})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: "{", "not JSON of ours"),
        (_of_another_version, "need schema 1"),
        (lambda folder: (folder / "sweep.json").read_text().replace('"layout"', '"lay"'), "fields missing or unknown"),
    ],
)
def test_a_damaged_question_is_refused(tmp_path: Path, change: Callable[[Path], str], message: str) -> None:
    small_sweep(out=tmp_path / "grid", axes={"cell.error_rel": [0.01]})
    (tmp_path / "grid" / "sweep.json").write_text(change(tmp_path / "grid"))
    with pytest.raises(RunFolderError, match=message):
        load_report(tmp_path / "grid")


# wrong questions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": {"cell.eror_rel": [1]}}, r"axes: cell\.eror_rel: unknown field; nearest: cell\.programming\.error_rel"),
        ({"axes": {"error_rel": []}}, r"axes: .*error_rel"),
        ({"axes": {"cell.error_rel": 0.1}}, r"axes: cell\.error_rel: 0\.1: need a list of values, or a range"),
        ({"axes": {"cell.error_rel": "0.1"}}, "need a list of values"),
        ({"axes": {"cell.error_rel": ["many"]}}, r"axes: cell\.error_rel: 'many': need"),
        ({"axes": {"cell.g_max_siemens": [-1.0]}}, r"axes: cell\.g_max_siemens: -1\.0: need g_max_siemens > 0"),
        ({"axes": {"cell.error_rel": [0.1], "cell.programming.error_rel": [0.2]}}, "are the same field"),
        ({"axes": {"cell.error_rel": {"low": 0.1}}}, "a range needs low and high"),
        ({"axes": {"cell.error_rel": {"low": 0.1, "hihg": 0.2}}}, "unknown key; nearest: high"),
        ({"axes": {"cell.error_rel": {"low": 0.2, "high": 0.1, "n": 3}}}, "need low < high, got 0.2 and 0.1"),
        ({"axes": {"cell.error_rel": {"low": 0.0, "high": 0.1, "n": 3, "scale": "log"}}}, "need 0 < low < high"),
        ({"axes": {"cell.error_rel": {"low": 0.1, "high": 0.2}}}, "give n, or list them"),
        ({"axes": {"cell.error_rel": {"low": 0.1, "high": 0.2, "n": 1}}}, "need a whole number from 2"),
        ({"axes": {"mapping.encoding": {"low": 0.1, "high": 0.2}}}, "not a number, so it has no range"),
        ({"axes": {"cell.error_rel": {"low": 0.1, "high": 0.2, "n": 400}, "cell.g_max_siemens": [1e-6 * i for i in range(1, 300)]}},
         "400 x 299 = 119600 points; need at most 100000"),
        ({"axes": {"run.methd": [1]}}, "the run has no such option; nearest: method"),
        ({"axes": None}, "need axes or points, and not both"),
        ({"points": [{"cell.error_rel": 0.1}]}, "need axes or points, and not both"),
        ({"axes": None, "points": [{"cell.error_rel": 0.1}, {"cell.clip": True}]}, "do not give the same fields"),
        ({"axes": None, "points": []}, "points: need a list of tables"),
        ({"design": "lattice"}, r"design: 'lattice': need grid \| random \| sobol"),
        ({"design": "sobol"}, "n_points: None: a sobol design needs a number of points"),
        ({"n_points": 5}, "a grid has as many points as its axes make"),
        ({"run": "predictt"}, r"run: 'predictt': need predict \| .*nearest: predict"),
        ({"run": 7}, "run: 7: need predict"),
        ({"options": {"methode": "adjoint"}}, "options: methode: predict takes no such option; nearest: method"),
        ({"options": {"seed": 3}}, "options: seed: the sweep gives this itself"),
        ({"options": {"method": object()}}, "options: method: .*: need numbers, texts"),
        ({"shard": (0, 4)}, "shard: 0/4: need 1/4 to 4/4"),
        ({"shard": (5, 4)}, "shard: 5/4"),
        ({"workers": 0}, "workers: 0: need a whole number from 1"),
    ],
)  # fmt: skip
def test_a_wrong_question_is_refused_before_anything_is_written(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        small_sweep(out=tmp_path / "grid", **change)
    assert not list(tmp_path.iterdir())


def test_a_function_that_no_process_could_be_sent_is_refused() -> None:
    with pytest.raises(SpecError, match="cannot be sent to other processes"):
        small_sweep(run=lambda plan, samples, seed: {}, options={}, workers=1)


def test_samples_are_needed_and_must_fit() -> None:
    with pytest.raises(SamplesError, match="run: predict needs samples"):
        sweep(digits_network("mlp"), CHIP, seed=7, axes={"cell.error_rel": [0.01]})
    with pytest.raises(SamplesError, match="x has shape"):
        sweep(digits_network("mlp"), CHIP, samples=_wrong_shape(), seed=7, axes={"cell.error_rel": [0.01]})


def _wrong_shape() -> Any:
    from workloads.samples import samples_of

    return samples_of(np.zeros((4, 1, 3, 3), np.float32))


def test_a_folder_that_cannot_be_one_of_a_sweep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(RunFolderError, match=r"out: .*file is a file"):
        small_sweep(out=tmp_path / "file")
    with pytest.raises(RunFolderError, match="with other things in it"):
        small_sweep(out=tmp_path / "other")
    with pytest.raises(RunFolderError, match="cannot write"):
        small_sweep(out=tmp_path / "file" / "inside")
    with pytest.raises(RunFolderError, match="is not the folder of a sweep"):
        _collect(tmp_path / "other")


def _collect(folder: Path) -> SweepReport:
    from accelsim.report.sweep_folder import collected

    return collected(folder)


def test_a_read_only_folder_is_refused() -> None:
    with pytest.raises(RunFolderError, match="cannot write the sweep's folder /proc/grid"):
        small_sweep(out="/proc/grid")  # where not even root can make one


# what is shown


def test_it_prints_the_best_point_and_escapes_names_in_html() -> None:
    report = small_sweep()
    assert report.best().values == {"cell.error_rel": 0.002, "mapping.g_used_siemens": 25e-6}
    assert report.best("read_power_w", largest=True).values["mapping.g_used_siemens"] == 25e-6
    assert "least mse_rel" in str(report)
    assert "12.5 uS" in str(report)
    assert "<table>" in report._repr_html_()
    with pytest.raises(SpecError, match="nearest: mse_rel"):
        report.best("mse_re")


def test_records_are_flat_and_csv_has_every_point(tmp_path: Path) -> None:
    report = small_sweep(axes={"mapping.g_used_siemens": ["20 uS", "30 uS"]})
    done, failed = report.to_dicts()
    assert done["by_cause.programming"] > 0.0
    assert done["status"] == "done"
    assert failed["status"] == "failed"
    assert "need cell.g_min" in failed["error"]
    assert len(report.to_csv(tmp_path / "x.csv").read_text().splitlines()) == 3 + report.failed[0].error.count("\n")


@pytest.mark.extras
def test_pandas_xarray_and_parquet_hold_the_same_numbers(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="needs the extra `frames`: pip install -e '.[test,frames]'")
    pytest.importorskip("xarray", reason="needs the extra `frames`: pip install -e '.[test,frames]'")
    pytest.importorskip("pyarrow", reason="needs the extra `frames`: pip install -e '.[test,frames]'")
    report = small_sweep()
    frame, data = report.to_pandas(), report.to_xarray()
    assert data["mse"].shape == (3, 2)
    assert float(data["mse"].sel({"cell.error_rel": 0.005, "mapping.g_used_siemens": 25e-6})) == report.points[3].answer["mse"]
    assert list(frame["mse"]) == [p.answer["mse"] for p in report.points]
    assert list(pandas.read_parquet(report.to_parquet(tmp_path / "x.parquet"))["mse"]) == list(frame["mse"])
    random = small_sweep(axes={"cell.error_rel": Span(low=0.001, high=0.01)}, design="random", n_points=3).to_xarray()
    assert random["mse"].dims == ("point",)
    assert random["cell.error_rel"].dims == ("point",)
    points = [{"mapping.levels": 16, "run.method": "adjoint"}, {"mapping.levels": None, "run.method": "sketched"}]
    mixed = small_sweep(axes=None, points=points, options={}).to_xarray()
    np.testing.assert_array_equal(mixed["mapping.levels"], [16.0, np.nan])  # numbers: a netCDF file holds no objects
    assert list(mixed["run.method"].values) == ["adjoint", "sketched"]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1, 2], [1, 2]), ([1, None], [1, float("nan")]), ([None, None], ["none", "none"]), (["a", None], ["a", "none"]),
        ([True, False], [True, False]), ([True, 2], ["true", "2"]), ([[1, 2], "a"], ["[1, 2]", "a"]),
    ],
)  # fmt: skip
def test_a_coordinate_is_of_one_kind(values: list[Any], found: list[Any]) -> None:
    from accelsim.report.sweep_point import coordinate

    assert str(coordinate(values)) == str(found)


def test_none_is_a_value_in_tables_and_a_wrong_point_is_numbered() -> None:
    report = small_sweep(axes={"mapping.levels": [16, None]})
    assert [row[0] for row in report.table()[1]] == ["16", "none"]
    with pytest.raises(SpecError, match=r"points\[1\]: mapping.levels: 1: need levels >= 2"):
        small_sweep(axes=None, points=[{"mapping.levels": 16}, {"mapping.levels": 1}])


def test_a_sweep_is_drawn_over_one_axis_two_and_as_dots() -> None:
    from matplotlib.figure import Figure

    report = small_sweep()
    line = report.plot(Figure().subplots(), over="cell.error_rel", at={"mapping.g_used_siemens": 25e-6})
    np.testing.assert_array_equal(line.lines[0].get_xydata()[:, 1], [p.answer["mse_rel"] for p in report.points[1::2]])
    lines = report.plot(Figure().subplots())
    assert len(lines.lines) == 2
    assert lines.get_legend() is not None
    many = small_sweep(axes={"cell.error_rel": [0.001 * i for i in range(1, 8)], "mapping.levels": [2**i for i in range(1, 9)]})
    drawn = many.plot(Figure().subplots()).collections[0].get_array()
    assert drawn is not None
    assert drawn.shape == (7, 8)
    dots = small_sweep(axes={"cell.error_rel": Span(low=0.001, high=0.01)}, design="sobol", n_points=4)
    assert len(dots.plot(Figure().subplots()).lines[0].get_xydata()) == 4
    words = small_sweep(axes={"mapping.encoding": ["differential", "offset"]})
    assert [t.get_text() for t in words.plot(Figure().subplots()).get_xticklabels()] == ["differential", "offset"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"over": "cell.error"}, "over: 'cell.error': the sweep has no such axis; nearest: cell.error_rel"),
        ({"over": ("cell.error_rel", "cell.error_rel")}, "need one axis or two different ones"),
        ({"over": "cell.error_rel", "at": {"mapping.g_used_siemens": 3.0}}, "not among its values"),
        ({"at": {"cell.error_rel": 0.01}}, "not an axis beside those drawn"),
        ({"column": "msee"}, "nearest: mse"),
    ],
)
def test_a_wrong_picture_is_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        small_sweep().plot(**how)
