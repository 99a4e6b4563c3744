"""Single files of run folders: JSON that is read with distrust, CSV, and writing that leaves no halves."""

import csv
import io
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from devices.base.errors import RunFolderError

RUN_SCHEMA = 1
"""Version of the files of run folders and of `--json`."""
MAX_TEXT_BYTES = 64 * 2**20


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file, on the disk, under a temporary name and rename it: there is the old file or the new one, never half of one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror or error}; give a writable place with room") from error
    finally:
        with suppress(OSError):  # where nothing can be written, nothing can be removed
            temporary.unlink(missing_ok=True)
    return path


def read_json(path: Path) -> dict[str, Any]:
    """Return the table that a JSON file holds; RunFolderError for what is too large, broken, or no table."""
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise RunFolderError(f"{path.name} has {path.stat().st_size} bytes; at most {MAX_TEXT_BYTES} are read")
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RunFolderError(f"{path.name} is not JSON of ours: {error}") from None
    if not isinstance(found, dict):
        raise RunFolderError(f"{path.name} holds no table")
    return found


def check_inside(path: Path) -> None:
    """Refuse a link that leads out of the run folder: a folder from elsewhere must not make us read other files."""
    try:
        inside = not path.is_symlink() or path.resolve().is_relative_to(path.parent.resolve())
    except RuntimeError:  # links that lead to each other
        inside = False
    if not inside:
        raise RunFolderError(f"{path.name} is a link that leads out of the run folder; put the file itself there")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that we write")


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Return flat records as CSV with a header."""
    out = io.StringIO()
    names = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(out, names, lineterminator="\n")
    if names:
        writer.writeheader()
    writer.writerows(records)
    return out.getvalue()
