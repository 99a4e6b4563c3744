"""Mutants of run folders: files taken out, changed, linked elsewhere, and records of other types with fitting checksums."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

from validation.fuzz.arrays import mutant_npz
from validation.fuzz.mutation import FLOATS, INTEGERS, NAMES, mutated_bytes, mutated_text, mutated_tree

VALUES: tuple[Any, ...] = (*INTEGERS, *FLOATS, *NAMES, None, True, [], {}, [[]], "array", "nan", 10**400, {"kind": "error"}, "0" * 64)


def mutant_run(choose: Random, sound: Path, folder: Path) -> None:
    """Copy a run folder to `folder` with one or two things wrong in it."""
    shutil.copytree(sound, folder)
    for _ in range(choose.choice((1, 1, 2))):
        names = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.is_symlink())
        if names:
            choose.choice(CHANGES)(choose, folder, choose.choice(names))
    if choose.random() < 0.7:
        _seal(folder)


def _bytes(choose: Random, folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(mutated_bytes(choose, path.read_bytes()))


def _text(choose: Random, folder: Path, name: str) -> None:
    path = folder / name
    if path.suffix in (".json", ".toml", ".csv"):
        text = path.read_bytes().decode("utf-8", errors="replace")
        path.write_bytes(mutated_text(choose, text).encode("utf-8", errors="replace"))


def _json(choose: Random, folder: Path, name: str) -> None:
    """Change values of a JSON file; the report and the record alike where both have them."""
    path = folder / (name if name.endswith(".json") else choose.choice(("record.json", "report.json", "manifest.json", "record.json")))
    if path.is_symlink() or not path.is_file():
        return
    try:
        tree = json.loads(path.read_text())
    except (OSError, ValueError):
        return
    if isinstance(tree, dict | list):
        path.write_text(json.dumps(mutated_tree(choose, tree, _value, pool=VALUES)))


def _value(choose: Random, old: Any) -> Any:
    if isinstance(old, float) and choose.random() < 0.5:
        return choose.choice((old * 2, -old, str(old), int(old) if abs(old) < 1e300 else 0))
    if isinstance(old, str) and choose.random() < 0.4:
        return choose.choice((old + "x", old[::-1], old * 1000))
    return choose.choice(VALUES)


def _gone(choose: Random, folder: Path, name: str) -> None:
    (folder / name).unlink()


def _linked(choose: Random, folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to(choose.choice(("../../secret.bin", "/etc/hostname", name, "/dev/zero", "spec.toml", "/proc/self/environ")))


def _replaced(choose: Random, folder: Path, name: str) -> None:
    """Put a folder, a pipe, nothing or an archive where a file was."""
    (folder / name).unlink()
    how = choose.randrange(4)
    if how == 0:
        (folder / name).mkdir()
    elif how == 1:
        os.mkfifo(folder / name)
    elif how == 2:
        (folder / name).write_bytes(b"")
    else:
        (folder / name).write_bytes(mutant_npz(choose, (4,)))


def _swapped(choose: Random, folder: Path, name: str) -> None:
    other = choose.choice(sorted(path.name for path in folder.iterdir() if path.is_file()))
    shutil.copyfile(folder / other, folder / (name + ".copy"))
    os.replace(folder / (name + ".copy"), folder / name)


def _archive(choose: Random, folder: Path, name: str) -> None:
    (folder / "arrays.npz").unlink(missing_ok=True)  # it may be a link by now, which must not be written through
    (folder / "arrays.npz").write_bytes(mutant_npz(choose, (2, 2)))


CHANGES = (_bytes, _text, _text, _json, _json, _json, _json, _gone, _linked, _replaced, _swapped, _archive)


def _seal(folder: Path) -> None:
    """Write the checksums of what is there now into the manifest, so that the change itself is read."""
    path = folder / "manifest.json"
    if path.is_symlink() or not path.is_file():
        return
    try:
        manifest = json.loads(path.read_text())
        sums = manifest["sha256"]
        for name in sums:
            if (folder / name).is_file() and os.stat(folder / name).st_size < 10**7:
                sums[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        path.write_text(json.dumps(manifest))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
