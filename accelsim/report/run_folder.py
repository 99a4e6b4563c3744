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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from accelsim.report.drawing import drawn
from accelsim.report.files import RUN_SCHEMA, csv_text
from accelsim.report.origin import Provenance
from accelsim.report.record_codec import arrays_of, encoded
from devices.base.errors import RunFolderError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHECKED = ("spec.toml", "report.json", "record.json", "arrays.npz")


class Saved(Protocol):
    """What a run folder is made of: a report, without knowing which."""

    kind: ClassVar[str]

    @property
    def provenance(self) -> Provenance: ...

    def to_json(self) -> str: ...

    def to_dicts(self) -> list[dict[str, Any]]: ...

    def arrays(self) -> dict[str, np.ndarray]: ...

    def texts(self) -> Mapping[str, str]: ...

    def plot(self, ax: "Axes | None" = None) -> "Axes": ...

    def pictures(self) -> tuple[str, ...]: ...


def save_report(report: Saved, folder: str | Path, *, command: Sequence[str] = (), figure: bool = False) -> Path:
    """Write one run folder and return its path.

    Raises RunFolderError where the folder exists already or cannot be written; nothing is left behind then.
    """
    with new_folder(folder) as inside:
        _write_run(report, inside, command=command, figure=figure)
    return Path(folder)


def save_reports(reports: Mapping[str, Saved], folder: str | Path, *, command: Sequence[str] = (), figure: bool = False) -> Path:
    """Write a folder with one run folder for each report, under the names given, and return its path; all or nothing."""
    with new_folder(folder) as inside:
        write_runs(reports, inside, command=command, figure=figure)
    return Path(folder)


def write_runs(reports: Mapping[str, Saved], inside: Path, *, command: Sequence[str], figure: bool) -> None:
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


def _write_run(report: Saved, inside: Path, *, command: Sequence[str], figure: bool) -> None:
    _write(inside / "spec.toml", report.provenance.spec_toml)
    _write(inside / "report.json", report.to_json() + "\n")
    _write(inside / "record.json", json.dumps({"kind": report.kind, "fields": encoded(report)}, indent=1, allow_nan=False) + "\n")
    with (inside / "arrays.npz").open("wb") as file:
        arrays: dict[str, Any] = report.arrays() | arrays_of(report)
        np.savez(file, **arrays)
    _write(inside / "table.csv", csv_text(report.to_dicts()))
    for name, text in report.texts().items():
        _write(inside / name, text)
    if figure:
        draw_to(report, inside / "figure")
        plot: Any = report.plot
        for name in report.pictures():
            _save(drawn(partial(plot, what=name)), inside / f"figure_{name}")
    _write(inside / "manifest.json", json.dumps(_manifest(report, inside, command=command), indent=2, allow_nan=False) + "\n")


def draw_to(report: Saved, stem: Path) -> None:
    """Write the report's picture as `stem.png` and `stem.svg`."""
    _save(drawn(report.plot), stem)


def _save(figure: "Figure", stem: Path) -> None:
    figure.savefig(stem.with_suffix(".png"), dpi=150)
    figure.savefig(stem.with_suffix(".svg"))


def _manifest(report: Saved, inside: Path, *, command: Sequence[str]) -> dict[str, Any]:
    p = report.provenance
    return {
        "schema": RUN_SCHEMA,
        "kind": report.kind,
        "seed": p.seed,
        "command": list(command),
        "network": {"name": p.network, "digest": p.network_digest},
        "samples_digest": p.samples_digest,
        "spec_digest": p.spec_digest,
        "versions": {"accelsim": p.version} | _versions(),
        "sha256": {name: sha256_of(inside / name) for name in CHECKED},
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


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
