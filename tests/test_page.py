"""Pages of runs: the answer first, nothing but text from files, no network, and fit for a phone, a keyboard and a screen reader."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from chromium import Browser, chromium_path
from made_reports import design_report, error_report, explore_report, provenance, sweep_report, trial_report

from accelsim import Accelerator, Evaluation, RunFolderError, TimeReport, load_embedded, place, simulate
from accelsim.cli import main
from accelsim.page.document import page_of, write_page
from accelsim.page.elements import NOT_SHOWN, formatted, text
from accelsim.report.base import Report
from accelsim.report.run_folder import save_report, save_reports

HOSTILE = (
    "<script>document.title='owned'</script>",
    "\"><img src=x onerror=\"document.title='owned'\">",
    "--!> <svg onload=document.title='owned'>",
    "]]></style></svg><iframe src=https://example.org>",
    "a $\\frac{ & &lt;b&gt; \u202etxt.exe\x07",
)
VOID = {"meta", "link", "br", "img"}


class Outline(HTMLParser):
    """The elements of a page, its text, its addresses and ids; wrong nesting is refused."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def values(self, name: str) -> list[str]:
        """Return the values of an attribute, over all elements."""
        return [value for _, attribute, value in self.attributes if attribute == name]


@pytest.fixture(scope="module")
def time_report() -> TimeReport:
    network, _ = load_embedded("fashion_cnn")
    return simulate(place(network, Accelerator.preset("isaac"), calibration=None), images=2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, time_report: TimeReport) -> dict[str, Path]:
    """A run folder of each kind, one of hostile names, and what `validate` writes."""
    folder = tmp_path_factory.mktemp("runs")
    evaluation = Evaluation(error=error_report(by_layer={"conv1": 0.01, "fc1": 0.0023}), time=time_report, elapsed_s=1.0)
    reports: dict[str, Report] = {
        "predict": error_report(), "trials": trial_report(), "optimize": design_report(), "simulate": time_report, "evaluate": evaluation,
        "infeasible": design_report(feasible=False, design=None, mse=None, read_power_w=None, baseline=None, mc=None, floor=1e-3, gap=3e-4,
                                    levers=("raise the budget",)),
        "sweep": sweep_report(), "explore": explore_report(), "hostile": hostile_report(),
    }  # fmt: skip
    found = {name: save_report(report, folder / name, command=["accelsim", name, HOSTILE[0]]) for name, report in reports.items()}
    found["training"] = training_folder(folder / "training")
    pair = {"predicted": error_report(), "trials": trial_report()}
    return found | {"validate": save_reports(pair, folder / "validate", command=["accelsim", "validate", "x", "--seed", "7"])}


def hostile_report() -> Report:
    layers = {name: 0.001 * (k + 1) for k, name in enumerate(HOSTILE)}
    told = provenance(network=HOSTILE[1], output=HOSTILE[2], warnings=HOSTILE)
    return error_report(provenance=told, by_layer=layers, by_cause={HOSTILE[3]: 0.0123}, meaning=HOSTILE, power_by_layer={})


KINDS = ("predict", "trials", "optimize", "simulate", "evaluate", "infeasible", "hostile", "validate", "sweep", "explore", "training")


@pytest.fixture(scope="module")
def pages(runs: dict[str, Path]) -> dict[str, str]:
    return {kind: page_of(run) for kind, run in runs.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_one_file_that_asks_for_nothing(pages: dict[str, str], kind: str) -> None:
    page = pages[kind]
    outline = Outline(page)
    assert not {"script", "img", "iframe", "link", "object", "form"} & set(outline.tags)
    assert not [name for _, name, _ in outline.attributes if name.startswith("on")]
    addresses = [*outline.values("href"), *outline.values("src"), *outline.values("xlink:href"), *re.findall(r"url\(([^)]*)\)", page)]
    assert addresses
    assert all(address.startswith("#") for address in addresses)
    ids = outline.values("id")
    assert len(ids) == len(set(ids))
    assert {address[1:] for address in addresses} <= set(ids)
    assert "default-src 'none'" in page


def test_a_page_is_the_same_text_each_time(runs: dict[str, Path], pages: dict[str, str]) -> None:
    assert page_of(runs["optimize"]) == pages["optimize"]


def test_the_answer_comes_before_tables_and_pictures(pages: dict[str, str]) -> None:
    page = pages["predict"]
    places = [page.index(part) for part in ("<h1>", "The mean squared error is 0.0123", "was converted from float64", "<svg", "<table")]
    assert places == sorted(places)
    assert "features.3 makes 57 % of it, and the cause programming 96 %" in page
    assert "calls itself valid" in page


def test_what_to_worry_about_is_told_as_such(tmp_path: Path, pages: dict[str, str]) -> None:
    invalid = save_report(error_report(rel_error_estimate=0.4), tmp_path / "invalid")
    assert 'class="answer alarm"' in page_of(invalid)
    assert "NOT valid" in page_of(invalid)
    infeasible = pages["infeasible"]
    assert 'class="answer alarm"' in infeasible
    assert "None: the least that is possible is 1 mW, 300 uW above the budget." in infeasible
    assert 'class="answer alarm"' not in pages["predict"]


def test_prediction_and_trials_together_have_a_verdict(tmp_path: Path, pages: dict[str, str]) -> None:
    assert "They agree" in pages["validate"]
    apart = {"predicted": error_report(mse=0.02), "trials": trial_report()}
    page = page_of(save_reports(apart, tmp_path / "apart"))
    assert "They do NOT agree" in page
    assert 'class="answer alarm"' in page


def test_names_from_files_are_text(pages: dict[str, str]) -> None:
    words = "".join(Outline(pages["hostile"]).words)
    for name in HOSTILE[:4]:
        assert name in words
    assert "\u202e" not in words
    assert f"{NOT_SHOWN}txt.exe{NOT_SHOWN}" in words


def test_the_command_has_the_seed_that_was_drawn(pages: dict[str, str], tmp_path: Path) -> None:
    assert text("accelsim predict '<script>document.title='\"'\"'owned'\"'\"'</script>' --seed 7") in pages["predict"]
    assert "validate x --seed 7</pre>" in pages["validate"]
    assert "saved from Python" in page_of(save_report(error_report(), tmp_path / "python"))


def test_the_spec_is_there_with_its_sources(pages: dict[str, str]) -> None:
    page = pages["predict"]
    assert "MemSE: Fast MSE Prediction" in page
    assert text(error_report().provenance.spec_toml.rstrip("\n")) in page


def test_values_have_the_units_of_their_names() -> None:
    assert formatted("read_power_w", 2e-4) == "200 uW"
    assert formatted("mse", 0.00123456) == "0.001235"
    assert formatted("share", 0.25) == "25.0 %"
    assert formatted("work_s", 1.5e-6) == "1.5 us"
    assert formatted("valid", True) == "yes"
    assert formatted("n_trials", 12345) == "12,345"
    assert formatted("anything", None) == formatted("mse", float("nan")) == "-"
    assert formatted("work_s", float("inf")) == "inf"


def test_a_long_table_says_how_long_it_is(tmp_path: Path) -> None:
    layers = {f"layer{i}": 1.0 for i in range(200)}
    page = page_of(save_report(error_report(by_layer=layers), tmp_path / "long"))
    assert "the first 60 of 200; table.csv of the run has them all" in page


def test_a_page_is_renewed_in_its_run_and_nowhere_else(runs: dict[str, Path], tmp_path: Path) -> None:
    run = runs["predict"]
    assert write_page(run) == write_page(run) == run / "report.html"
    other = tmp_path / "page.html"
    assert write_page(run, other).read_bytes() == (run / "report.html").read_bytes()
    with pytest.raises(RunFolderError, match="is there already"):
        write_page(run, other)
    with pytest.raises(RunFolderError, match="give a writable place"):
        write_page(run, tmp_path / "no" / "page.html")
    with pytest.raises(RunFolderError, match="no such folder"):
        write_page(tmp_path / "none")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html"]


def test_the_command_line_says_where_the_page_is(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "p.html"
    assert main(["report", str(runs["optimize"]), "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    assert main(["report", str(tmp_path)]) == 2
    assert "not a run folder" in capsys.readouterr().err


# many points


def test_a_sweeps_page_says_which_is_best_and_what_each_axis_does(pages: dict[str, str]) -> None:
    page = pages["sweep"]
    parts = ("<h1>What do", "The least mse_rel is 0.06, at", "From cell.programming.error_rel", "<svg", "<table")
    places = [page.index(part) for part in parts]
    assert places == sorted(places)
    assert text("The largest accuracy_predicted is 0.89, at cell.programming.error_rel = 0.01 and mapping.levels = 16.") in page
    assert "read_power_w is 10 uW at every point." in page
    assert "6 points: 4 computed, 1 failed, 1 missing." in page
    assert text("1 failed: mapping.levels: <b>none</b> of these") in page
    assert 'class="answer alarm"' in page
    assert "Failed points, with their errors" in page
    assert page.count("<svg") == 3


def test_the_folder_of_a_sweep_is_a_page_itself(tmp_path: Path) -> None:
    from accelsim.report.search_folder import write_command
    from tests.sweeps import small_sweep

    small_sweep(out=tmp_path / "grid")
    assert "saved from Python" in page_of(tmp_path / "grid")
    write_command(tmp_path / "grid", ["accelsim", "sweep", "grid.toml", "--shard", "2/3", "--workers", "2"])
    page = page_of(tmp_path / "grid")
    assert "accelsim sweep grid.toml --workers 2 --seed 7</pre>" in page
    assert "are not computed again" in page
    assert "6 points: 6 computed, 0 failed, 0 missing." in page
    assert 'class="answer alarm"' not in page
    assert write_page(tmp_path / "grid") == tmp_path / "grid" / "report.html"
    assert small_sweep(out=tmp_path / "grid").n_reused == 6  # the page is no stranger there


def test_a_searchs_page_has_the_front_and_what_matters(pages: dict[str, str], tmp_path: Path) -> None:
    page = pages["explore"]
    assert "4 of 6 trials are beaten by no other where error" in page
    assert text("The least error is 0.002, with power 5 uW: trial 0,") in page
    assert "matters most" not in page  # of five trials
    more = [replace(trial, number=i + 10 * k) for k in range(4) for i, trial in enumerate(explore_report().trials[:5])]
    found = page_of(save_report(explore_report(trials=tuple(more)), tmp_path / "more"))
    assert "cell.programming.error_rel matters most to error: 100 % of its variance" in found
    assert "1 failed: too" in page


def test_a_search_without_a_feasible_trial_says_what_is_nearest(tmp_path: Path) -> None:
    trials = tuple(replace(trial, feasible=False) for trial in explore_report().trials)
    page = page_of(save_report(explore_report(trials=trials), tmp_path / "none"))
    assert text("None of 6 trials has an answer where error <= 0.008.") in page
    assert text("Whatever the constraints, the best error met is 0.002: trial 0,") in page
    assert 'class="answer alarm"' in page


def test_the_folder_of_a_search_is_a_page_itself(tmp_path: Path) -> None:
    from accelsim.report.search_folder import JOURNAL, write_found

    (tmp_path / JOURNAL).touch()
    with pytest.raises(RunFolderError, match="before its first batch"):
        page_of(tmp_path)
    write_found(tmp_path, explore_report())
    assert "4 of 6 trials are beaten by no other" in page_of(tmp_path)


def training_folder(folder: Path) -> Path:
    """Write what `accelsim train` leaves, as far as its page reads it."""
    layers = [
        {"layer": name, "n_weights": 8, "share_of_reads": 0.5, "error_rates_p": [p], "energies_rel": [0.5]}
        for name, p in (("conv1", 1e-4), ("<b>dense2", 0.02))
    ]  # fmt: skip
    record = {
        "schema": 1, "kind": "train", "version": "0.1.0", "seed": 3, "network": {"name": "fashion", "digest": None},
        "recipe_digest": "a" * 64, "method": "lanmax", "law": "exponential",
        "energy_reference": "energy 1 is that of a bit at full energy", "energy_rel": 0.25,
        "accuracy": 0.874, "accuracy_half_width": 0.0005, "accuracy_std": 0.001, "accuracy_right": 0.875, "n_draws": 20,
        "n_test_images": 1000, "n_steps": 20, "layers": layers, "history": [{"step": 10.0, "accuracy": 0.8, "energy_rel": 0.25}],
    }  # fmt: skip
    folder.mkdir()
    (folder / "recipe.toml").write_text("layers = 'dense 4'\n")
    (folder / "report.json").write_text(json.dumps(record))
    return folder


def test_a_training_has_a_page(tmp_path: Path) -> None:
    folder = training_folder(tmp_path / "run")
    page = page_of(folder)
    parts = ("<h1>How well does fashion", "Accuracy: 87.40 %", "4 times less", "<svg", "<table", "The recipe</h2>")
    places = [page.index(part) for part in parts]
    assert places == sorted(places)
    assert text("from 0.0001 in conv1 to 0.02 in <b>dense2") in page
    (folder / "command.json").write_text(json.dumps({"schema": 1, "command": ["accelsim", "train", "--recipe", "fashion"]}))
    assert "accelsim train --recipe fashion --seed 3</pre>" in page_of(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "x"}, "need kind train"), ({"accuracy": "x"}, "accuracy: need a number"),
        ({"layers": 3}, "layers: need a list of tables"),
        ({"layers": [{"layer": "a", "n_weights": 1, "share_of_reads": 1.0, "error_rates_p": []}]}, "error_rates_p: need a list of numbers"),
        ({"seed": 1.5}, "seed: need a number"), ({"method": None}, "method: need a text"),
    ],
)  # fmt: skip
def test_a_damaged_report_of_a_training_is_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    folder = training_folder(tmp_path / "run")
    record = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps(record | change))
    with pytest.raises(RunFolderError, match=f"run: report.json: .*{said}"):
        page_of(folder)


# in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if chromium_path() is None:
        pytest.skip("no Chromium: install Debian's `chromium` to look at pages as a browser does")
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


CONTRAST = """
(() => {
  const light = c => { const [r, g, b] = c.map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
                       return .2126 * r + .7152 * g + .0722 * b; };
  const parts = s => s.match(/[0-9.]+/g).map(Number);
  const ground = e => { while (e) { const c = parts(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; e = e.parentElement; }
                        return [255, 255, 255]; };
  let worst = 99;
  for (const e of document.querySelectorAll('p,li,a,th,td,caption,figcaption,pre,h1,h2,h3')) {
    const a = light(parts(getComputedStyle(e).color).slice(0, 3)), b = light(ground(e).slice(0, 3));
    worst = Math.min(worst, (Math.max(a, b) + .05) / (Math.min(a, b) + .05));
  }
  return worst;
})()
"""  # noqa: E501


@pytest.mark.parametrize(
    ("kind", "width"),
    [
        ("predict", 1280), ("hostile", 1280), ("evaluate", 360), ("optimize", 360), ("validate", 360), ("sweep", 360), ("sweep", 1280),
        ("explore", 360), ("training", 360),
    ],
)  # fmt: skip
def test_a_browser_shows_the_page_whole_and_quietly(browser: Browser, pages: dict[str, str], kind: str, width: int, tmp_path: Path) -> None:
    page = tmp_path / f"{kind}.html"
    page.write_text(pages[kind], encoding="utf-8")
    browser.open(page, width=width)
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]
    assert browser.value("document.title").endswith("?")
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(CONTRAST) >= 4.5
    browser.screenshot(tmp_path / "page.png")
    assert _shades(tmp_path / "page.png") > 50


def _shades(picture: Path) -> int:
    from matplotlib.image import imread

    red, green, blue = (255 * imread(picture)[::3, ::3, :3]).astype(np.int64).reshape(-1, 3).T
    return len(np.unique((red * 256 + green) * 256 + blue))


def test_keyboard_and_screen_reader_get_everywhere(browser: Browser, runs: dict[str, Path]) -> None:
    browser.open(write_page(runs["predict"]), width=360)
    reached = []
    for _ in range(12):
        browser.press("Tab")
        reached.append(browser.value("document.activeElement.className + '|' + (document.activeElement.getAttribute('href') || '')"))
    assert reached[0] == "skip|#main"
    assert reached[1:5] == ["|#pictures", "|#numbers", "|#spec", "|#again"]
    assert "wide|" in reached  # what is scrolled sideways can be scrolled by keys
    spoken = browser.spoken()
    pictures = [name for role, name in spoken if role == "image"]
    assert pictures == ["The squared error that each cause and each layer makes alone, with its share of the whole."]
    assert ("heading", "How to get it again") in spoken
    assert ("main", "") in spoken
    assert {"columnheader", "rowheader"} <= {role for role, _ in spoken}


def test_a_page_prints(browser: Browser, runs: dict[str, Path]) -> None:
    browser.open(write_page(runs["predict"]), width=1280)
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.value("getComputedStyle(document.querySelector('pre')).whiteSpace") == "pre-wrap"
    assert len(browser.call("Page.printToPDF")["data"]) > 10_000
    browser.call("Emulation.setEmulatedMedia", media="")


def test_the_browser_would_notice_a_bad_page(browser: Browser, tmp_path: Path) -> None:
    """Negative control of the checks above."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!DOCTYPE html><title>?</title><p style='width:3000px;color:#bbb'>wide</p><script>console.error('x'); throw 1</script>"
        "<img src='http://127.0.0.1:9/none.png'>"
    )
    browser.open(bad, width=360)
    assert len(browser.complaints()) >= 2
    assert "http://127.0.0.1:9/none.png" in browser.requests()
    assert browser.value("document.documentElement.scrollWidth") > 360
    assert browser.value(CONTRAST) < 4.5
