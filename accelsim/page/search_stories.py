"""The stories of many points: which is best, what each field does, and what failed."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from accelsim.page.story import Draw, Story, Table
from accelsim.report.axis_effects import Effect, Group, effects
from accelsim.report.explore_report import ExploreReport, ExploreTrial, unit_name
from accelsim.report.sweep_picture import drawn_axes
from accelsim.report.sweep_point import LARGER_IS_BETTER, axis_text, value_text
from accelsim.report.sweep_report import SweepReport, first_line
from devices.base.quantity import percent

MAX_FIGURES, MAX_CAUSES = 4, 3
ENOUGH = 4
"""Trials in each group before it is said which field matters most."""


def of_sweep(report: SweepReport) -> Story:
    """Return the story of a sweep."""
    figures = report.figures() if report.done else ()
    records = report.to_dicts()
    found = [effect for name in figures for effect in effects(records, tuple(report.axes), name)]
    return Story(
        question=f"What do {_listed(tuple(report.axes))} do to {report.provenance.network}, and which point is best?",
        answer=tuple(_sweep_sentences(report, figures, found)),
        alarm=bool(report.failed or report.missing) or not report.done,
        pictures=tuple(_sweep_pictures(report, figures)),
        tables=(
            *_best_table(report, figures), *_effect_tables(found),
            *_failures([(_shown(point.values), point.error) for point in report.failed], what="points"),
            ("Points", _point_records(report, figures)),
        ),
    )  # fmt: skip


def _sweep_sentences(report: SweepReport, figures: Sequence[str], found: Sequence[Effect]) -> Iterator[str]:
    if not report.done:
        yield "No point has an answer yet."
    for name in figures:
        best = report.best(name)
        if len(report.done) > 1 and len({point.record().get(name) for point in report.done}) == 1:
            yield f"{name} is {value_text(name, best.record()[name])} at every point."
            continue
        word = "largest" if name in LARGER_IS_BETTER else "least"
        yield f"The {word} {name} is {value_text(name, best.record()[name])}, at {_at(best.values)}."
    if figures:
        yield from _effect_sentences([effect for effect in found if effect.column == figures[0]])
    yield f"{len(report.points)} points: {len(report.done)} computed, {len(report.failed)} failed, {len(report.missing)} missing."
    yield from _causes([point.error for point in report.failed])
    if report.missing:
        yield "The same command computes what is missing, and only that."


def _effect_sentences(found: Sequence[Effect]) -> Iterator[str]:
    for effect in found:
        if effect.share is None:
            yield f"{effect.axis} changes nothing: {effect.column} is the same at every point."
            continue
        first, last = effect.groups[0], effect.groups[-1]
        means = [value_text(effect.column, group.mean) for group in (first, last)]
        yield (
            f"From {effect.axis} = {_ends(effect.axis, first)} to {_ends(effect.axis, last)} the mean {effect.column} goes from {means[0]} "
            f"to {means[1]}; alone this axis makes {percent(effect.share, 0)} of the variance between points."
        )


def _sweep_pictures(report: SweepReport, figures: Sequence[str]) -> Iterator[tuple[str, Draw]]:
    moving = [path for path, values in report.axes.items() if len(values) > 1]
    others = "" if len(moving) <= 2 or report.layout != "grid" else ", the other axes at their first value"
    for name in figures[:MAX_FIGURES]:
        yield f"{name} over {_listed(drawn_axes(report))}{others}.", partial(report.plot, column=name)


def _best_table(report: SweepReport, figures: Sequence[str]) -> Iterator[Table]:
    rows = []
    for name in figures:
        best = report.best(name)
        others = {other: value_text(other, best.record().get(other)) for other in figures}
        rows.append({"best": name, **_shown(best.values), **others})
    yield "The best point of each figure", rows


def _effect_tables(found: Sequence[Effect]) -> Iterator[Table]:
    """Yield a table an axis: the mean of every figure at each of its values."""
    for axis in dict.fromkeys(effect.axis for effect in found):
        of = [effect for effect in found if effect.axis == axis]
        rows: list[dict[str, Any]] = [
            {
                "at": _ends(axis, group), "points": group.n,
                **{f"mean {e.column}": value_text(unit_name(e.column), e.groups[i].mean) for e in of},
            }
            for i, group in enumerate(of[0].groups)
            if all(i < len(effect.groups) for effect in of)
        ]
        shares = {f"mean {e.column}": "-" if e.share is None else percent(e.share, 0) for e in of}
        yield f"What {axis} does: means over the other axes", [*rows, {"at": "share of the variance", "points": None, **shares}]


def _ends(axis: str, group: Group) -> str:
    low, high = axis_text(axis, group.low), axis_text(axis, group.high)
    return low if low == high else f"{low} to {high}"


def _point_records(report: SweepReport, figures: Sequence[str]) -> list[dict[str, Any]]:
    records = [(point.status, _shown(point.values), point.record()) for point in report.points]
    return [{**at, **{name: value_text(name, record.get(name)) for name in figures}, "status": status} for status, at, record in records]


def of_explore(report: ExploreReport) -> Story:
    """Return the story of a search."""
    names, fields = list(report.objectives), list(report.space)
    done = [trial.record() for trial in report.trials if trial.status == "done"]
    found = [effect for name in names for effect in effects(done, fields, name)]
    failed = [({"trial": str(t.number), **_shown(t.values)}, t.error) for t in report.trials if t.status == "failed"]
    pictures: list[tuple[str, Draw]] = []
    if done and (len(names) > 1 or report.feasible):
        caption = "The best value so far, trial by trial." if len(names) == 1 else f"Trials and their front over {names[1]} and {names[0]}."
        pictures.append((caption, report.plot))
    return Story(
        question=f"Which designs of {report.provenance.network} are best in {_listed(names)}, over {_listed(fields)}?",
        answer=tuple(_search_sentences(report, found)),
        alarm=not report.front,
        pictures=tuple(pictures),
        tables=(
            ("The front: no other trial beats these", [_trial_record(report, trial) for trial in report.front]),
            *_effect_tables(found), *_failures(failed, what="trials"),
            ("All trials", [_trial_record(report, t) | {"feasible": t.feasible, "status": t.status} for t in report.trials]),
        ),
    )  # fmt: skip


def _search_sentences(report: ExploreReport, found: Sequence[Effect]) -> Iterator[str]:
    where = f" where {' and '.join(report.constraints)}" if report.constraints else ""
    front, n = report.front, len(report.trials)
    if not front:
        yield f"None of {n} trials has an answer{where}." if where else f"None of {n} trials has an answer."
        yield from _nearest(report)
    elif len(report.objectives) == 1:
        yield f"Trial {front[0].number} of {n}{where}:"
    else:
        yield f"{len(front)} of {n} trials are beaten by no other{where}; they are the front."
    for name, direction in report.objectives.items():
        if front:
            best = (max if direction == "maximize" else min)(front, key=lambda trial: trial.objectives[name])
            others = [f"{other} {_value(other, best)}" for other in report.objectives if other != name]
            word = "largest" if direction == "maximize" else "least"
            beside = f", with {_listed(others)}" if others else ""
            yield f"The {word} {name} is {_value(name, best)}{beside}: trial {best.number}, {_at(best.values)}."
    for name in report.objectives:
        yield from _strongest([effect for effect in found if effect.column == name])
    if report.scales != "given":
        yield f"Conductances were not searched: per {report.scales} they are what the closed form says is best in each trial."
    yield from _causes([trial.error for trial in report.trials if trial.status == "failed"])


def _nearest(report: ExploreReport) -> Iterator[str]:
    done = [trial for trial in report.trials if trial.status == "done"]
    for name, direction in report.objectives.items():
        if done:
            best = (max if direction == "maximize" else min)(done, key=lambda trial: trial.objectives[name])
            yield f"Whatever the constraints, the best {name} met is {_value(name, best)}: trial {best.number}, {_at(best.values)}."
    if done:
        yield "Loosen a constraint, or widen the space."


def _strongest(found: Sequence[Effect]) -> Iterator[str]:
    known = [effect for effect in found if effect.share is not None and min(group.n for group in effect.groups) >= ENOUGH]
    if known:
        yield f"{known[0].axis} matters most to {known[0].column}: {percent(known[0].share or 0.0, 0)} of its variance over the trials."


def _trial_record(report: ExploreReport, trial: ExploreTrial) -> dict[str, Any]:
    return {"trial": trial.number, **{name: _value(name, trial) for name in report.objectives}, **_shown(trial.values)}


def _value(name: str, trial: ExploreTrial) -> str:
    return value_text(unit_name(name), trial.objectives.get(name))


# what both tell


def _failures(failed: Sequence[tuple[Mapping[str, str], str]], *, what: str) -> Iterator[Table]:
    if failed:
        yield f"Failed {what}, with their errors", [{**at, "error": first_line(error)} for at, error in failed]


def _causes(errors: Sequence[str]) -> Iterator[str]:
    for cause, n in Counter(map(first_line, errors)).most_common(MAX_CAUSES):
        yield f"{n} failed: {cause}"


def _shown(values: Mapping[str, Any]) -> dict[str, str]:
    return {path: axis_text(path, value) for path, value in values.items()}


def _at(values: Mapping[str, Any]) -> str:
    return _listed([f"{path} = {text}" for path, text in _shown(values).items()])


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
