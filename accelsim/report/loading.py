"""Reading run folders: every file checked to be there, whole, small enough and as it was written."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.report.base import Report
from accelsim.report.design_report import DesignReport
from accelsim.report.diagnosis import Diagnosis
from accelsim.report.evaluation import Evaluation
from accelsim.report.explore_report import ExploreReport
from accelsim.report.files import MAX_TEXT_BYTES, RUN_SCHEMA, check_inside, read_json
from accelsim.report.record_codec import decoded
from accelsim.report.records import ErrorReport, TrialReport
from accelsim.report.run_folder import CHECKED, sha256_of
from accelsim.report.search_folder import EXPLORE, JOURNAL, read_command, read_found
from accelsim.report.sweep_folder import SWEEP, collected
from accelsim.report.sweep_report import SweepReport
from accelsim.report.time_report import TimeReport
from accelsim.report.training_report import is_training, read_training
from devices.base.errors import AccelsimError, RunFolderError
from devices.base.toml_codec import shown
from workloads.samples import DAMAGED

_REPORTS = (ErrorReport, TrialReport, DesignReport, TimeReport, Evaluation, SweepReport, ExploreReport, Diagnosis)
KINDS: Mapping[str, type[Report]] = {report.kind: report for report in _REPORTS}
MAX_ARRAY_BYTES = 2**30
HEADER_BYTES = 2**16


def load_report(folder: str | Path) -> Report:
    """Return the report that a run folder holds.

    Raises RunFolderError for what is not a run folder, or one whose files are missing, damaged, changed or oversized.
    """
    place = Path(folder)
    try:
        if (place / SWEEP).is_file():
            return collected(place)
        if (place / EXPLORE).is_file():
            return read_found(place)
        if is_training(place):
            return read_training(place)
        return _load(place)
    except RunFolderError as error:
        said = str(error)
        raise RunFolderError(said if said.startswith(str(place)) else f"{place}: {said}") from None
    except AccelsimError as error:
        raise RunFolderError(f"{place} holds what this version refuses: {error}") from error
    except OSError as error:
        raise RunFolderError(f"{place} cannot be read: {error.strerror or error}") from error


def has_run(folder: Path) -> bool:
    """Whether `load_report` and `manifest_of` read this folder: of a run, a sweep, a search or a training."""
    return any((folder / name).is_file() for name in ("manifest.json", SWEEP, EXPLORE)) or is_training(folder)


def manifest_of(folder: str | Path, report: Report) -> dict[str, Any]:
    """Return the manifest of a run folder; for others, which have none, the command and version that are known."""
    place = Path(folder)
    try:
        if (place / "manifest.json").is_file():
            return load_manifest(place)
        return {"command": read_command(place), "versions": {"accelsim": report.provenance.version}}
    except RunFolderError as error:
        raise RunFolderError(f"{place}: {error}") from None


def load_manifest(folder: str | Path) -> dict[str, Any]:
    """Return the manifest of a run folder, checked to be one that this version reads."""
    place = Path(folder)
    if not (place / "manifest.json").is_file():
        raise RunFolderError(_not_a_run(place))
    check_inside(place / "manifest.json")
    manifest = read_json(place / "manifest.json")
    if manifest.get("schema") != RUN_SCHEMA or manifest.get("kind") not in tuple(KINDS):
        raise RunFolderError(f"manifest.json: need schema {RUN_SCHEMA} and kind {' | '.join(KINDS)}; written by another version?")
    if not all(isinstance(manifest.get(name), dict) for name in ("versions", "sha256")):
        raise RunFolderError("manifest.json: need tables `versions` and `sha256`")
    return manifest


def _not_a_run(place: Path) -> str:
    if not place.is_dir():
        return f"{'no such folder' if not place.exists() else 'a file, not a run folder'}; give the --out of an earlier run"
    if (place / SWEEP).is_file():
        return f"the folder of a sweep; `accelsim collect {place} --out RUN` makes a run folder of what it holds"
    if (place / JOURNAL).is_file():
        return "the folder of a search that was ended before its first batch; `accelsim explore` goes on there"
    runs = sorted(one.name for one in place.iterdir() if (one / "manifest.json").is_file())
    return f"holds the runs {', '.join(runs)}; name one of them" if runs else "not a run folder: it has no manifest.json"


def _load(place: Path) -> Report:
    manifest = load_manifest(place)
    for name in CHECKED:
        _check_unchanged(place / name, manifest["sha256"].get(name))
    record = read_json(place / "record.json")
    if record.get("kind") != manifest["kind"]:
        raise RunFolderError(f"record.json is of kind {shown(record.get('kind'))}, manifest.json of {manifest['kind']!r}")
    report = decoded(KINDS[manifest["kind"]], record.get("fields"), arrays=_arrays(place / "arrays.npz"))
    if report.to_json_dict() != read_json(place / "report.json"):
        raise RunFolderError("report.json and record.json contradict each other")
    return report


def _check_unchanged(path: Path, expected: object) -> None:
    limit = MAX_ARRAY_BYTES if path.suffix == ".npz" else MAX_TEXT_BYTES
    check_inside(path)
    if not path.is_file():
        raise RunFolderError(f"{path.name} is missing")
    if path.stat().st_size > limit:
        raise RunFolderError(f"{path.name} has {path.stat().st_size} bytes; at most {limit} are read")
    if sha256_of(path) != expected:
        raise RunFolderError(f"{path.name} is not as it was written (its sha256 is not that of manifest.json)")


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {info.filename.removesuffix(".npy"): _array(archive, info) for info in archive.infolist()}
    except (*DAMAGED, MemoryError) as error:
        raise RunFolderError(f"arrays.npz is damaged: {str(error)[:200]}") from None


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """Read one array whose header declares what the archive holds."""
    with archive.open(info) as member:
        np.lib.format.read_magic(member)
        shape, _, dtype = np.lib.format.read_array_header_1_0(member, max_header_size=HEADER_BYTES)
        declared = int(np.prod(shape, dtype=object)) * dtype.itemsize + member.tell()
    if dtype.hasobject or declared != info.file_size or declared > MAX_ARRAY_BYTES:
        raise ValueError(f"{info.filename} declares {dtype} {shape}")
    with archive.open(info) as member:
        array = np.lib.format.read_array(member, allow_pickle=False, max_header_size=HEADER_BYTES)
    array.flags.writeable = False
    return array
