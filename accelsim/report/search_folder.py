"""What the folder of a search or a sweep holds beside its points: the command that made it, and what a search has found so far.

    command.json        the command as it was typed, without the number of a job of an array
    explore.json        every field of a search's report, written whenever `explore` ends or is interrupted
"""

import json
from collections.abc import Sequence
from pathlib import Path

from accelsim.report.base import clean
from accelsim.report.explore_report import ExploreReport
from accelsim.report.files import check_inside, csv_text, read_json, write_whole
from accelsim.report.record_codec import decoded, encoded
from devices.base.errors import RunFolderError

SCHEMA = 1
COMMAND, EXPLORE, JOURNAL = "command.json", "explore.json", "journal.log"


def write_command(folder: Path, words: Sequence[str]) -> None:
    """Write the command of a folder, unless it is there as it would be."""
    kept = _without_shard(words)
    try:
        known = read_command(folder)
    except (RunFolderError, OSError):  # a damaged one is written anew
        known = []
    if known != kept:
        write_whole(folder / COMMAND, (json.dumps({"schema": SCHEMA, "command": kept}) + "\n").encode())


def read_command(folder: Path) -> list[str]:
    """Return the command of a folder; none where no command line made it."""
    path = folder / COMMAND
    check_inside(path)
    if not path.is_file():
        return []
    words = read_json(path).get("command")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise RunFolderError(f"{COMMAND}: need a list of texts `command`; remove it")
    return words


def _without_shard(words: Sequence[str]) -> list[str]:
    kept = list(words)
    for i, word in enumerate(kept):
        if word == "--shard":
            return kept[:i] + kept[i + 2 :]
        if word.startswith("--shard="):
            return kept[:i] + kept[i + 1 :]
    return kept


def write_found(folder: Path, report: ExploreReport) -> None:
    """Write what a search has found, and its table of trials."""
    text = json.dumps({"schema": SCHEMA, "kind": "explore", "fields": clean(encoded(report))}, allow_nan=False) + "\n"
    write_whole(folder / EXPLORE, text.encode())
    write_whole(folder / "table.csv", csv_text(report.to_dicts()).encode())


def read_found(folder: Path) -> ExploreReport:
    """Return what a search had found when it ended last."""
    check_inside(folder / EXPLORE)
    found = read_json(folder / EXPLORE)
    if found.get("schema") != SCHEMA or found.get("kind") != "explore":
        raise RunFolderError(f"{EXPLORE}: need schema {SCHEMA} and kind explore; written by another version?")
    try:
        report: ExploreReport = decoded(ExploreReport, found.get("fields"), arrays={})
    except RunFolderError as error:
        raise RunFolderError(f"{EXPLORE}: {error}; run the search again, which writes it anew and keeps its trials") from None
    if any(set(trial.objectives) != set(report.objectives) for trial in report.trials if trial.status == "done"):
        raise RunFolderError(f"{EXPLORE}: trials and objectives do not match; run the search again, which writes it anew")
    return report
