"""A run folder as one page: question and answer, warnings, pictures, tables, the spec with its sources, and how to get it again."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelsim.accelerator import Accelerator
from accelsim.citations import citations
from accelsim.page.elements import bullets, code, facts, figure, paragraph, records, section, text
from accelsim.page.stories import Story, story_of
from accelsim.page.style import POLICY, STYLE
from accelsim.report.base import Report
from accelsim.report.drawing import drawn, svg_of
from accelsim.report.files import write_whole
from accelsim.report.loading import has_run, load_report, manifest_of
from accelsim.report.records import Agreement, ErrorReport, TrialReport, agreement
from accelsim.report.search_folder import JOURNAL
from devices.base.errors import AccelsimError, RunFolderError

PAGE = "report.html"
PAIR = ("predicted", "trials")
"""Names of the runs that `accelsim validate` writes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """One run of a folder: its name (empty where the folder is the run), report and manifest."""

    name: str
    report: Report
    manifest: Mapping[str, Any]


def write_page(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a run folder, or of a folder of runs, as one HTML file that needs no network; return its path.

    Without `out` it is `report.html` in the folder, written anew where it is there; another file is never replaced.
    Raises RunFolderError for what is not a run folder and for what cannot be written.
    """
    place = Path(folder)
    page = page_of(place)
    target = place / PAGE if out is None else Path(out)
    if out is not None and target.exists():
        raise RunFolderError(f"--out: {target} is there already; give another name, or remove it first")
    if not target.parent.is_dir():
        raise RunFolderError(f"--out: no folder {target.parent}; give a writable place")
    try:
        return write_whole(target, page.encode())
    except RunFolderError as error:
        lever = "" if out is not None else "; --out FILE.html writes it elsewhere"
        raise RunFolderError(f"--out: {error}{lever}") from None


def page_of(folder: str | Path) -> str:
    """Return the page of a run folder, or of a folder of runs, as text."""
    runs = _runs(Path(folder))
    stories = [story_of(run.report) for run in runs]
    verdict = _verdict(runs)
    title = stories[0].question if verdict is None else _AGREEMENT_QUESTION.format(network=runs[0].report.provenance.network)
    if len(runs) > 1 and verdict is None:
        title = f"{len(runs)} runs: {', '.join(run.name for run in runs)}"
    counter = iter(range(1, 1000))
    body = [
        "" if verdict is None else _answer((str(verdict), _VERDICTS[verdict.agrees]), alarm=not verdict.agrees),
        *(_run_part(run, story, counter, alone=len(runs) == 1) for run, story in zip(runs, stories)),
        *_specs(runs),
        section("How to get it again", *(_remaking(run) for run in runs), name="again"),
    ]
    return _document(title, "".join(body), links=_links(runs))


_AGREEMENT_QUESTION = "Do prediction and Monte-Carlo agree on the error of {network}?"
_VERDICTS = {
    True: "They agree: the prediction may be used in place of sampling here.",
    False: "They do NOT agree: do not rest on the prediction here.",
}


def _runs(folder: Path) -> list[Run]:
    if has_run(folder) or (folder / JOURNAL).is_file() or not folder.is_dir():
        return [_run("", folder)]
    inside = sorted(one for one in folder.iterdir() if has_run(one))
    if not inside:
        return [_run("", folder)]  # says what is wrong with it
    return [_run(one.name, one) for one in inside]


def _run(name: str, folder: Path) -> Run:
    report = load_report(folder)
    return Run(name=name, report=report, manifest=manifest_of(folder, report))


def _verdict(runs: Sequence[Run]) -> Agreement | None:
    """Return how prediction and trials of a `validate` compare."""
    found = {run.name: run.report for run in runs}
    predicted, trials = (found.get(name) for name in PAIR)
    if isinstance(predicted, ErrorReport) and isinstance(trials, TrialReport):
        try:
            return agreement(predicted, trials, tolerance=predicted.tol_rel)
        except ValueError:  # they answer different questions
            return None
    return None


def _answer(sentences: Sequence[str], *, alarm: bool) -> str:
    inside = "".join(paragraph(sentence) for sentence in sentences)
    return f'<div class="answer{" alarm" if alarm else ""}" role="region" aria-label="answer">{inside}</div>'


def _run_part(run: Run, story: Story, counter: Iterator[int], *, alone: bool) -> str:
    """Return all that is told of one run but its spec."""
    level, name = (2, "") if alone else (3, f"{run.name}-")
    rows = [row for row in run.report.rows() if not row[0].startswith("  by ")]
    pictures = (figure(svg_of(drawn(draw)), number=next(counter), caption=caption) for caption, draw in story.pictures)
    parts = (
        _answer(story.answer, alarm=story.alarm),
        _warnings(run.report.provenance.warnings),
        section("Pictures", *pictures, name=f"{name}pictures", level=level),
        section(
            "Numbers",
            facts(rows, caption="The answer as the command line prints it"),
            *(records(found, caption=caption) for caption, found in story.tables),
            name=f"{name}numbers",
            level=level,
        ),
    )
    return "".join(parts) if alone else section(f"{run.name}: {story.question}", *parts, name=f"run-{run.name}")


def _warnings(lines: Sequence[str]) -> str:
    return bullets(lines, kind="warnings") if lines else ""


def _specs(runs: Sequence[Run]) -> Iterator[str]:
    """Yield each spec once, with the references that it rests on."""
    by_digest: dict[str, list[Run]] = {}
    for run in runs:
        by_digest.setdefault(run.report.provenance.spec_digest, []).append(run)
    for number, alike in enumerate(by_digest.values()):
        of = "" if len(by_digest) == 1 else f" of {', '.join(run.name for run in alike)}"
        what = "recipe" if alike[0].report.kind == "train" else "spec"
        yield section(f"The {what}{of}", *_spec(alike[0].report.provenance.spec_toml), name="spec" if not number else f"spec-{number}")


def _spec(toml: str) -> Iterator[str]:
    try:
        accelerator = Accelerator.from_text(toml)
    except AccelsimError:  # of a kind that is no accelerator, such as an FPGA pipeline
        yield code(toml.rstrip("\n"))
        return
    sources = [{"what": found.what, "reference": found.reference} for found in citations(accelerator)]
    yield records(sources, caption="Sources that it rests on")
    yield code(toml.rstrip("\n"))


def _remaking(run: Run) -> str:
    command = _command(run)
    told = [
        paragraph(f"{run.name}:") if run.name else "",
        paragraph(_IN_FOLDER.get(run.report.kind, _AS_TYPED)) + code(command) if command else paragraph(_NO_COMMAND),
        facts(_origin(run), caption="What must be the same for the same numbers"),
    ]
    return "".join(told)


_AS_TYPED = "In the folder that the command was typed in:"
_IN_FOLDER = {
    "sweep": "In the folder that the command was typed in; points that are in the sweep's folder already are not computed again:",
    "train": "In the folder that the command was typed in, with another --out, since a finished training is never replaced:",
    "explore": "In the folder that the command was typed in; trials that are in the search's folder already are not computed again:",
}
_NO_COMMAND = (
    "This was saved from Python, which keeps no command: place the network on the spec above, and ask again with the seed below. "
    "accelsim.load_report reads the folder."
)


def _command(run: Run) -> str:
    """Return the command of the run, with the seed that was drawn where none was typed."""
    words = [str(word) for word in run.manifest.get("command") or ()]
    typed = any(word == "--seed" or word.startswith("--seed=") for word in words)
    return shlex.join(words if typed or not words else [*words, "--seed", str(run.report.provenance.seed)])


def _origin(run: Run) -> list[tuple[str, str]]:
    p = run.report.provenance
    rows = [
        ("seed", str(p.seed)), ("network", p.network + (f", sha256 {p.network_digest}" if p.network_digest else "")),
        *((("samples", f"sha256 {p.samples_digest}"),) if p.samples_digest else ()), ("spec", f"sha256 {p.spec_digest}"),
    ]  # fmt: skip
    versions = ", ".join(f"{name} {value}" for name, value in run.manifest["versions"].items())
    return [*rows, ("versions", versions)]


def _links(runs: Sequence[Run]) -> list[tuple[str, str]]:
    alone = [("pictures", "Pictures"), ("numbers", "Numbers")]
    parts = alone if len(runs) == 1 else [(f"run-{run.name}", run.name) for run in runs]
    what = "The recipe" if runs[0].report.kind == "train" else "The spec"
    return [*parts, ("spec", what), ("again", "How to get it again")]


def _document(title: str, body: str, *, links: Sequence[tuple[str, str]]) -> str:
    listed = "".join(f'<li><a href="#{text(name)}">{text(shown)}</a></li>' for name, shown in links)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the answer</a>
<header><h1>{text(title)}</h1><nav aria-label="parts of this page"><ul>{listed}</ul></nav></header>
<main id="main">
{body}
</main>
<footer><p class="quiet">Written by accelsim from a run folder; this file needs no network.</p></footer>
</body>
</html>
"""
