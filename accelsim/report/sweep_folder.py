"""The folder of a sweep: what was asked, and one file for each point that is known.

    sweep.json          the question: run, options, axes, seed, digests, spec, and the key and values of every point
    points/KEY.json     one point's answer or error; KEY is the digest of all that it depends on
    table.csv           all points, written when a sweep or `accelsim collect` ends

A point's file is written under a temporary name and renamed, and carries the digest of what is in it: whoever is killed, each file
is whole or not there. Several jobs may work in one folder.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from accelsim.report.base import clean
from accelsim.report.files import check_inside, csv_text, read_json, write_whole
from accelsim.report.origin import Provenance
from accelsim.report.record_codec import decoded, encoded
from accelsim.report.sweep_point import SweepPoint
from accelsim.report.sweep_report import SweepReport
from devices.base.errors import RunFolderError

SCHEMA = 1
SWEEP = "sweep.json"
POINTS = "points"
Fault = Literal["", "refused", "broke"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Known:
    """What is known of a point: its answer, or its error.

    `fault` is `refused` for errors that would come again (a spec that breaks a rule), `broke` for others (memory, a worker that
    died), which the next sweep tries again.
    """

    key: str
    answer: dict[str, Any]
    error: str = ""
    fault: Fault = ""
    elapsed_s: float = 0.0

    @property
    def is_final(self) -> bool:
        """Whether computing it again would give the same."""
        return self.fault != "broke"

    def point(self, values: Mapping[str, Any]) -> SweepPoint:
        """Return it as a report's point."""
        status = "failed" if self.fault else "done"
        return SweepPoint(
            key=self.key, values=dict(values), status=status, answer=self.answer, error=self.error, elapsed_s=self.elapsed_s
        )


class PointStore:
    """Answers by key: files in a folder, or in memory where there is none."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.memory: dict[str, Known] = {}

    def get(self, key: str) -> Known | None:
        """Return what is known of a point, None where nothing is; RunFolderError for a damaged file."""
        if self.folder is None:
            return self.memory.get(key)
        path = self._path(key)
        return read_point(path) if path.is_file() else None

    def put(self, known: Known) -> None:
        """Keep what is known of a point."""
        if self.folder is None:
            self.memory[known.key] = known
            return
        write_whole(self._path(known.key), point_text(known).encode())

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / POINTS / f"{key}.json"


def point_text(known: Known) -> str:
    """Return the file of a point; what may differ when it is computed again stands outside of what is digested."""
    body = {"key": known.key, "answer": known.answer, "error": known.error, "fault": known.fault}
    digest = hashlib.sha256(_canonical(body).encode()).hexdigest()
    return json.dumps({"schema": SCHEMA, "sha256": digest, "point": body, "elapsed_s": known.elapsed_s}, allow_nan=False) + "\n"


def _canonical(body: object) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)


def read_point(path: Path) -> Known:
    """Return what a point's file holds; RunFolderError says what is wrong with it and what to do."""
    try:
        check_inside(path)
        found = read_json(path)
        body = found.get("point")
        if found.get("schema") != SCHEMA or not isinstance(body, dict) or body.get("key") != path.stem:
            raise RunFolderError("not a point of a sweep, or renamed")
        if hashlib.sha256(_canonical(body).encode()).hexdigest() != found.get("sha256"):
            raise RunFolderError("its sha256 is not that of what it holds")
        return Known(
            key=str(body["key"]), answer=dict(body["answer"]), error=str(body["error"]), fault=body["fault"],
            elapsed_s=float(found["elapsed_s"]),
        )  # fmt: skip
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {error.strerror or error}") from error
    except (RunFolderError, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged ({error}); remove it and run the sweep again, which computes it anew") from None


# the question


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SweepQuestion:
    """What a sweep asks: all but the answers."""

    provenance: Provenance
    run: str
    options: dict[str, Any]
    axes: dict[str, Any]
    layout: str
    keys: tuple[str, ...]
    values: tuple[dict[str, Any], ...]


def prepare(folder: Path) -> None:
    """Make the folder of a sweep, or take the one that is there; RunFolderError for a file, other things, or no right to write."""
    try:
        if folder.exists() and not folder.is_dir():
            raise RunFolderError(f"{folder} is a file; give the name of a folder, a new one or one of an earlier sweep")
        if folder.is_dir() and not (folder / SWEEP).exists() and _is_taken(folder):
            raise RunFolderError(f"{folder} is a folder with other things in it, not of a sweep; give another name")
        (folder / POINTS).mkdir(parents=True, exist_ok=True)
        write_whole(folder / POINTS / ".writable", b"")
        (folder / POINTS / ".writable").unlink(missing_ok=True)
    except RunFolderError as error:
        raise RunFolderError(f"out: {error}") from None
    except OSError as error:
        raise RunFolderError(f"out: cannot write the sweep's folder {folder}: {error.strerror or error}; give a writable place") from error


def _is_taken(folder: Path) -> bool:
    """Whether there is something that no sweep has left; one that was killed at once leaves an empty folder of points."""
    return any(one.name != POINTS and not one.name.endswith(".tmp") for one in folder.iterdir())


def write_question(folder: Path, question: SweepQuestion) -> None:
    """Write sweep.json, unless it is there as it would be."""
    text = json.dumps({"schema": SCHEMA, "kind": "sweep", "question": clean(encoded(question))}, allow_nan=False) + "\n"
    path = folder / SWEEP
    if path.is_symlink() or not path.is_file() or path.read_bytes() != text.encode():  # a link may lead out: it is replaced unread
        write_whole(path, text.encode())


def read_question(folder: Path) -> SweepQuestion:
    """Return what a sweep's folder was asked."""
    if not (folder / SWEEP).is_file():
        instead = "a file" if folder.is_file() else "no such folder" if not folder.exists() else f"it has no {SWEEP}"
        raise RunFolderError(f"{folder} is not the folder of a sweep: {instead}; give the --out of `accelsim sweep`")
    try:
        check_inside(folder / SWEEP)
        found = read_json(folder / SWEEP)
    except RunFolderError as error:
        raise RunFolderError(f"{folder}: {error}; run the sweep again, which writes it anew and keeps its points") from None
    if found.get("schema") != SCHEMA or found.get("kind") != "sweep":
        raise RunFolderError(f"{folder / SWEEP}: need schema {SCHEMA} and kind sweep; written by another version?")
    try:
        question: SweepQuestion = decoded(SweepQuestion, found.get("question"), arrays={})
    except RunFolderError as error:
        raise RunFolderError(f"{folder / SWEEP}: {error}; run the sweep again, which writes it anew and keeps its points") from None
    if len(question.keys) != len(question.values) or not all(k.isalnum() for k in question.keys):
        raise RunFolderError(f"{folder / SWEEP}: keys and values do not match; run the sweep again, which writes it anew")
    return question


def report_of(
    question: SweepQuestion, known: Mapping[str, Known], *, which: Sequence[int] | None = None, n_computed: int = 0,
    stopped_by: Literal["end", "interrupt"] = "end", elapsed_s: float = 0.0,
) -> SweepReport:  # fmt: skip
    """Return the report of a sweep, of all its points or of `which`."""
    chosen = range(len(question.keys)) if which is None else which
    points = tuple(_point(question, i, known) for i in chosen)
    n_known = sum(point.status != "missing" for point in points)
    return SweepReport(
        provenance=question.provenance, run=question.run, options=question.options, axes=question.axes, layout=question.layout,
        points=points, n_computed=n_computed, n_reused=n_known - n_computed, stopped_by=stopped_by, elapsed_s=elapsed_s,
    )  # fmt: skip


def _point(question: SweepQuestion, i: int, known: Mapping[str, Known]) -> SweepPoint:
    key, values = question.keys[i], question.values[i]
    if key in known:
        return known[key].point(values)
    return SweepPoint(key=key, values=values, status="missing", answer={}, error="", elapsed_s=0.0)


def known_of(store: PointStore, keys: Iterable[str]) -> dict[str, Known]:
    """Return what the store knows of these points; RunFolderError for a damaged file."""
    found = ((key, store.get(key)) for key in dict.fromkeys(keys))
    return {key: known for key, known in found if known is not None}


def collected(folder: Path) -> SweepReport:
    """Return the report of a sweep's folder, from whatever points are in it, whoever computed them."""
    question = read_question(folder)
    known = known_of(PointStore(folder), question.keys)
    return report_of(question, known, elapsed_s=sum(one.elapsed_s for one in known.values()))


def write_table(folder: Path, report: SweepReport) -> None:
    """Write the table of all points."""
    write_whole(folder / "table.csv", csv_text(report.to_dicts()).encode())
