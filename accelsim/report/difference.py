"""What two runs have different: question, versions, spec and answers, with their intervals."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from accelsim.report.base import Report, clean, columns_table
from accelsim.report.loading import load_manifest, load_report
from accelsim.report.records import ErrorReport, TrialReport
from devices.base.errors import RunFolderError, SpecError
from devices.base.toml_codec import parse_toml

Change: TypeAlias = tuple[str, Any, Any]
"""Name, value in the first run, value in the second."""
Z95 = 1.959964
_TIMES = ("elapsed_s", "cpu_s")
_QUESTION = ("kind", "seed", "network", "network_digest", "samples_digest", "output", "reference")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What differs between two runs; empty tuples where nothing does."""

    names: tuple[str, str]
    question: tuple[Change, ...]
    versions: tuple[Change, ...]
    spec: tuple[Change, ...]
    answers: tuple[Change, ...]
    verdict: str

    def numbers(self) -> dict[str, Any]:
        """Return the differences by their names in the JSON."""
        parts = {"question": self.question, "versions": self.versions, "spec": self.spec, "answers": self.answers}
        listed = {part: [{"name": name, "a": a, "b": b} for name, a, b in changes] for part, changes in parts.items()}
        return clean({"a": self.names[0], "b": self.names[1], **listed, "verdict": self.verdict})

    def __str__(self) -> str:
        parts = (("question", self.question), ("versions", self.versions), ("spec", self.spec), ("answers", self.answers))
        return "\n\n".join([*(_section(title, changes, self.names) for title, changes in parts), self.verdict])


def diff(a: str | Path, b: str | Path) -> str:
    """Return in words what two run folders have different."""
    return str(compare(a, b))


def compare(a: str | Path, b: str | Path) -> Difference:
    """Return what two run folders have different; RunFolderError where one is not a run folder."""
    one, other = load_report(a), load_report(b)
    versions = [load_manifest(folder)["versions"] for folder in (a, b)]
    specs = [_leaves(_spec(report, folder)) for report, folder in ((one, a), (other, b))]
    return Difference(
        names=(str(a), str(b)),
        question=_changes(_question(one), _question(other)),
        versions=_changes(*versions),
        spec=_changes(*specs),
        answers=_changes(_answers(one), _answers(other)),
        verdict=_verdict(one, other),
    )


def _spec(report: Report, folder: str | Path) -> dict[str, Any]:
    try:
        return parse_toml(report.provenance.spec_toml, origin=f"{folder}: spec_toml in record.json")
    except SpecError as error:
        raise RunFolderError(str(error)) from None


def _question(report: Report) -> dict[str, Any]:
    return {"kind": report.kind} | {name: getattr(report.provenance, name) for name in _QUESTION[1:]}


def _leaves(table: Mapping[str, Any], *, path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in table.items():
        full = f"{path}.{name}" if path else str(name)
        found |= _leaves(value, path=full) if isinstance(value, Mapping) else {full: value}
    return found


def _answers(report: Report) -> dict[str, Any]:
    """Return the numbers of a report one by one; no lists, which have one entry an output, trial or Pareto point."""
    leaves = _leaves(report.numbers())
    return {name: value for name, value in leaves.items() if not isinstance(value, list) and name.rpartition(".")[2] not in _TIMES}


def _changes(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[Change, ...]:
    names = dict.fromkeys([*one, *other])
    return tuple((name, one.get(name), other.get(name)) for name in names if not _same(one.get(name), other.get(name)))


def _same(one: Any, other: Any) -> bool:
    both_nan = isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
    return both_nan or (type(one) is type(other) and one == other)


def _verdict(one: Report, other: Report) -> str:
    if not isinstance(one, ErrorReport | TrialReport) or not isinstance(other, ErrorReport | TrialReport):
        return "Reports of these kinds have no common interval to compare."
    difference, error = other.mse - one.mse, math.hypot(one.mse_se, other.mse_se)
    relative = f" ({100.0 * difference / one.mse:+.2f} %)" if one.mse > 0.0 else ""
    if difference == 0.0:
        return f"MSE {one.mse:.4g} in both."
    text = f"MSE {_with_interval(one)} and {_with_interval(other)}: a difference of {difference:+.3g}{relative}"
    if error == 0.0:
        return f"{text}; both are computed without sampling."
    within = "within" if abs(difference) <= Z95 * error else "BEYOND"
    return f"{text}, {within} its 95 % interval of +- {Z95 * error:.2g}."


def _with_interval(report: ErrorReport | TrialReport) -> str:
    return f"{report.mse:.4g}" + (f" +- {Z95 * report.mse_se:.2g}" if report.mse_se > 0.0 else "")


def _section(title: str, changes: tuple[Change, ...], names: tuple[str, str]) -> str:
    if not changes:
        return f"{title}: the same"
    is_quantity = title != "question"  # a seed's change has no percentage
    body = [[f"  {name}", _shown(a), _shown(b), _relative(a, b) if is_quantity else ""] for name, a, b in changes]
    return columns_table([f"{title}:", *(_short(name) for name in names), "change"], body)


def _short(name: str) -> str:
    return name if len(name) <= 24 else "..." + name[-21:]


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= 24 else text[:12] + "..." if _is_digest(text) else text[:48]


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _relative(one: Any, other: Any) -> str:
    numbers = [value for value in (one, other) if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < 2 or not numbers[0] or not all(map(math.isfinite, numbers)):
        return ""
    return f"{100.0 * (numbers[1] / numbers[0] - 1.0):+.2f} %"
