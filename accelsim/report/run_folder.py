"""Run folders: an answer with all that is needed to check it, to read it elsewhere, and to get it again.

    spec.toml       the complete spec                 report.json     the answer, as `--json` prints it
    manifest.json   versions, digests, command        record.json     every field of the report, for `load_report`
    arrays.npz      its arrays                        table.csv       its detail, as `to_dicts` returns it
    design.toml     the design, when there is one     figure.png      its picture, when asked for (figure.svg too),
                                                      and figure_NAME.png, .svg where it has several

Written under a temporary name beside the target and renamed: there is a whole folder or none. Never a pickle.
"""

import hashlib
import json
import platform
import secrets
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.report.base import SCHEMA, Report
from accelsim.report.design_report import DesignReport
from accelsim.report.diagnosis import Diagnosis
from accelsim.report.drawing import drawn
from accelsim.report.evaluation import Evaluation
from accelsim.report.explore_report import ExploreReport
from accelsim.report.files import MAX_TEXT_BYTES, csv_text, read_json
from accelsim.report.record_codec import arrays_of, decoded, encoded
from accelsim.report.records import ErrorReport, TrialReport
from accelsim.report.sweep_folder import SWEEP, collected
from accelsim.report.sweep_report import SweepReport
from accelsim.report.time_report import TimeReport
from devices.base.errors import AccelsimError, RunFolderError
from workloads.samples import DAMAGED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_REPORTS = (ErrorReport, TrialReport, DesignReport, TimeReport, Evaluation, SweepReport, ExploreReport, Diagnosis)
KINDS: Mapping[str, type[Report]] = {report.kind: report for report in _REPORTS}
MAX_ARRAY_BYTES = 2**30
HEADER_BYTES = 2**16
_CHECKED = ("spec.toml", "report.json", "record.json", "arrays.npz")


def save_report(report: Report, folder: str | Path, *, command: Sequence[str] = (), figure: bool = False) -> Path:
    """Write one run folder and return its path.

    Raises RunFolderError where the folder exists already or cannot be written; nothing is left behind then.
    """
    with new_folder(folder) as inside:
        _write_run(report, inside, command=command, figure=figure)
    return Path(folder)


def save_reports(reports: Mapping[str, Report], folder: str | Path, *, command: Sequence[str] = (), figure: bool = False) -> Path:
    """Write a folder with one run folder for each report, under the names given, and return its path; all or nothing."""
    with new_folder(folder) as inside:
        write_runs(reports, inside, command=command, figure=figure)
    return Path(folder)


def write_runs(reports: Mapping[str, Report], inside: Path, *, command: Sequence[str], figure: bool) -> None:
    """Write run folders into a folder that `new_folder` made."""
    for name, report in reports.items():
        (inside / name).mkdir()
        _write_run(report, inside / name, command=command, figure=figure)


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder` to write in; rename it when the block ends well, remove it otherwise."""
    target = Path(folder)
    check_new(target)
    temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        temporary.rename(target)
    except OSError as error:
        raise RunFolderError(f"cannot write the run folder {target}: {error.strerror or error}; give a writable place") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_new(folder: str | Path) -> None:
    """Raise RunFolderError unless a run folder can be made here: nothing is there but, perhaps, an empty folder."""
    target = Path(folder)
    try:
        if (target / "manifest.json").exists():
            raise RunFolderError(f"{target} is a run folder already; give another name, or remove it first")
        if target.is_dir() and any(target.iterdir()):
            raise RunFolderError(f"{target} is a folder with other things in it; give a name that is not taken")
        if target.exists() and not target.is_dir():
            raise RunFolderError(f"{target} is a file; give the name of a folder that is not there yet")
        _check_writable(target.parent)
    except OSError as error:
        raise RunFolderError(f"cannot write the run folder {target}: {error.strerror or error}; give a writable place") from error


def _check_writable(folder: Path) -> None:
    """Make and remove a folder where the run folder will be, so that a long run does not end in vain."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    trial = there / f".accelsim.{secrets.token_hex(4)}.tmp"
    trial.mkdir()
    trial.rmdir()


def _write_run(report: Report, inside: Path, *, command: Sequence[str], figure: bool) -> None:
    _write(inside / "spec.toml", report.provenance.spec_toml)
    _write(inside / "report.json", report.to_json() + "\n")
    _write(inside / "record.json", json.dumps({"kind": report.kind, "fields": encoded(report)}, indent=1, allow_nan=False) + "\n")
    with (inside / "arrays.npz").open("wb") as file:
        arrays: dict[str, Any] = report.arrays() | arrays_of(report)
        np.savez(file, **arrays)
    _write(inside / "table.csv", csv_text(report.to_dicts()))
    if isinstance(report, DesignReport) and report.design is not None:
        _write(inside / "design.toml", report.design.to_toml())
    if figure:
        draw_to(report, inside / "figure")
        plot: Any = report.plot
        for name in report.pictures():
            _save(drawn(partial(plot, what=name)), inside / f"figure_{name}")
    _write(inside / "manifest.json", json.dumps(_manifest(report, inside, command=command), indent=2, allow_nan=False) + "\n")


def draw_to(report: Report, stem: Path) -> None:
    """Write the report's picture as `stem.png` and `stem.svg`."""
    _save(drawn(report.plot), stem)


def _save(figure: "Figure", stem: Path) -> None:
    figure.savefig(stem.with_suffix(".png"), dpi=150)
    figure.savefig(stem.with_suffix(".svg"))


def _manifest(report: Report, inside: Path, *, command: Sequence[str]) -> dict[str, Any]:
    p = report.provenance
    return {
        "schema": SCHEMA,
        "kind": report.kind,
        "seed": p.seed,
        "command": list(command),
        "network": {"name": p.network, "digest": p.network_digest},
        "samples_digest": p.samples_digest,
        "spec_digest": p.spec_digest,
        "versions": {"accelsim": p.version} | _versions(),
        "sha256": {name: _sha256(inside / name) for name in _CHECKED},
    }


def _versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on, and the kind of CPU."""
    packages = {name: _version(name) for name in ("numpy", "scipy", "numba", "onnx")}
    return {"python": platform.python_version(), **packages, "machine": platform.machine()}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# reading


def load_report(folder: str | Path) -> Report:
    """Return the report that a run folder holds.

    Raises RunFolderError for what is not a run folder, or one whose files are missing, damaged, changed or oversized.
    """
    place = Path(folder)
    try:
        if (place / SWEEP).is_file():
            return collected(place)
        return _load(place)
    except RunFolderError as error:
        raise RunFolderError(f"{place}: {error}") from None
    except AccelsimError as error:
        raise RunFolderError(f"{place} holds what this version refuses: {error}") from error
    except OSError as error:
        raise RunFolderError(f"{place} cannot be read: {error.strerror or error}") from error


def load_manifest(folder: str | Path) -> dict[str, Any]:
    """Return the manifest of a run folder, checked to be one that this version reads."""
    place = Path(folder)
    if not (place / "manifest.json").is_file():
        raise RunFolderError(_not_a_run(place))
    check_inside(place / "manifest.json")
    manifest = read_json(place / "manifest.json")
    if manifest.get("schema") != SCHEMA or manifest.get("kind") not in KINDS:
        raise RunFolderError(f"manifest.json: need schema {SCHEMA} and kind {' | '.join(KINDS)}; written by another version?")
    if not all(isinstance(manifest.get(name), dict) for name in ("versions", "sha256")):
        raise RunFolderError("manifest.json: need tables `versions` and `sha256`")
    return manifest


def _not_a_run(place: Path) -> str:
    if not place.is_dir():
        return "no such folder" if not place.exists() else "a file, not a run folder"
    if (place / SWEEP).is_file():
        return f"the folder of a sweep; `accelsim collect {place} --out RUN` makes a run folder of what it holds"
    runs = sorted(one.name for one in place.iterdir() if (one / "manifest.json").is_file())
    return f"holds the runs {', '.join(runs)}; name one of them" if runs else "not a run folder: it has no manifest.json"


def _load(place: Path) -> Report:
    manifest = load_manifest(place)
    for name in _CHECKED:
        _check_unchanged(place / name, manifest["sha256"].get(name))
    record = read_json(place / "record.json")
    if record.get("kind") != manifest["kind"]:
        raise RunFolderError(f"record.json is of kind {record.get('kind')!r}, manifest.json of {manifest['kind']!r}")
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
    if _sha256(path) != expected:
        raise RunFolderError(f"{path.name} is not as it was written (its sha256 is not that of manifest.json)")


def check_inside(path: Path) -> None:
    """Refuse a link that leads out of the run folder: a folder from elsewhere must not make us read other files."""
    try:
        inside = not path.is_symlink() or path.resolve().is_relative_to(path.parent.resolve())
    except RuntimeError:  # links that lead to each other
        inside = False
    if not inside:
        raise RunFolderError(f"{path.name} is a link that leads out of the run folder; put the file itself there")


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
