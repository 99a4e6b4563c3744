"""Mutants of what is asked of many points - files of sweeps, searches and trainings - and of the folders and checkpoints they leave."""

import io
import json
import os
import shutil
import zipfile
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from validation.fuzz.arrays import mutant_npz, sound_npz
from validation.fuzz.mutation import FLOATS, INTEGERS, NAMES, mutated_bytes, mutated_text, mutated_tree

HAS_OPTUNA, HAS_TORCH = (find_spec(name) is not None for name in ("optuna", "torch"))
SWEEP = """schema = 1
network = "tiny.onnx"
inputs = "tiny.npz"
calibration = "tiny.npz"
spec = "memse"
set = ["cell.programming.clip=false"]
seed = 1
run = "predict"
design = "grid"
[axes]
cell.programming.error_rel = [0.01, 0.02]
"mapping.g_used_siemens" = { low = "10 uS", high = "25 uS", n = 2, scale = "log" }
[options]
method = "adjoint"
"""
SEARCH = """schema = 1
network = "tiny.onnx"
inputs = "tiny.npz"
spec = "memse"
seed = 1
objectives = ["error", "power"]
constraints = ["error <= 0.5"]
n_trials = 3
batch = 2
sampler = "random"
scales = "layer"
[space]
cell.programming.error_rel = { low = 0.001, high = 0.02, scale = "log" }
mapping.levels = [16, 64, "none"]
[options]
method = "adjoint"
"""
RECIPE = """layers = "conv 3 k3 s2, dense 6"
[word]
coding = "binary"
n_bits = 1
[law]
kind = "exponential"
[faults]
kind = "transient"
[method]
kind = "lanmax"
energy_budget_rel = 0.4
[schedule]
n_epochs = 1
batch_size = 8
shift_pixels = 0
mirror = false
[evaluation]
n_draws = 2
"""
VALUES: tuple[Any, ...] = (*INTEGERS, *FLOATS, *NAMES, None, True, [], {}, [[]], "array", 10**400, "0" * 64)


def training_images(n: int = 24) -> bytes:
    """Return images and labels to train on."""
    return sound_npz(Random(9), (1, 6, 6), n=n)


def idx_bytes(values: np.ndarray) -> bytes:
    """Return an IDX file of unsigned bytes."""
    return bytes((0, 0, 8, values.ndim)) + b"".join(n.to_bytes(4, "big") for n in values.shape) + values.astype(np.uint8).tobytes()


def write_idx(choose: Random, folder: Path) -> None:
    """Write a folder as MNIST's with one of its files damaged, at times packed."""
    import gzip

    folder.mkdir()
    generator = np.random.default_rng(4)
    arrays = {
        f"{split}-{what}": values
        for split in ("train", "t10k")
        for what, values in (
            ("images-idx3-ubyte", generator.integers(0, 256, (24, 6, 6))), ("labels-idx1-ubyte", np.arange(24) % 3),
        )
    }  # fmt: skip
    damaged = choose.choice(sorted(arrays))
    for name, values in arrays.items():
        raw = idx_bytes(values)
        if name == damaged:
            raw = _wrong_idx(choose, raw)
        if choose.random() < 0.3:
            raw = gzip.compress(raw, mtime=0)
            name = choose.choice((name, f"{name}.gz"))
            raw = mutated_bytes(choose, raw) if choose.random() < 0.2 else raw
        (folder / name).write_bytes(raw)


def _wrong_idx(choose: Random, raw: bytes) -> bytes:
    how = choose.randrange(4)
    if how == 0:
        return mutated_bytes(choose, raw)
    made = bytearray(raw)
    if how == 1:
        made[choose.randrange(2, 4)] = choose.choice((0, 1, 2, 4, 8, 9, 13, 255))
    elif how == 2:
        at = 4 + 4 * choose.randrange(max(1, raw[3]))
        made[at : at + 4] = choose.choice((0, 1, 23, 2**16, 2**31, 2**32 - 1)).to_bytes(4, "big")
    else:
        made = made[: choose.randrange(len(made))]
    return bytes(made)


# folders of sweeps and searches


def mutant_search_folder(choose: Random, sound: Path, folder: Path) -> None:
    """Copy the folder of a sweep or search with one or two of its files, or of its points, changed."""
    shutil.copytree(sound, folder)
    for _ in range(choose.choice((1, 1, 2))):
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        if files:
            _changed_file(choose, choose.choice(files))


def _changed_file(choose: Random, path: Path) -> None:
    how = choose.randrange(9)
    raw = path.read_bytes()
    if how == 0:
        path.write_bytes(mutated_bytes(choose, raw))
    elif how == 1:
        path.write_bytes(mutated_text(choose, raw.decode("utf-8", errors="replace")).encode("utf-8", errors="replace"))
    elif how == 2:
        path.unlink()
    elif how == 3:
        path.unlink()
        elsewhere = ("../../secret.bin", "../../../secret.bin", "/etc/hostname", path.name, "/dev/zero", "/proc/self/environ")
        path.symlink_to(choose.choice(elsewhere))
    elif how == 4:
        path.unlink()
        os.mkfifo(path) if choose.random() < 0.5 else path.mkdir()
    elif path.suffix == ".log":
        lines = raw.decode("utf-8", errors="replace").split("\n")
        at = choose.randrange(len(lines))
        lines[at] = _changed_json(choose, lines[at])
        path.write_bytes("\n".join(lines).encode("utf-8", errors="replace"))
    else:
        path.write_bytes(_changed_json(choose, raw.decode("utf-8", errors="replace")).encode("utf-8", errors="replace"))


def _changed_json(choose: Random, text: str) -> str:
    """Return JSON with values changed, and the sha256 of a point made to fit."""
    try:
        tree = json.loads(text)
    except ValueError:
        return mutated_text(choose, text)
    if not isinstance(tree, dict | list):
        return text
    made = mutated_tree(choose, tree, _value, pool=VALUES)
    if isinstance(made, dict) and isinstance(made.get("point"), dict) and choose.random() < 0.8:
        try:
            body = json.dumps(made["point"], sort_keys=True, separators=(",", ":"), allow_nan=False)
        except ValueError:
            return json.dumps(made)
        made["sha256"] = sha256(body.encode("utf-8", errors="replace")).hexdigest()
    return json.dumps(made)


def _value(choose: Random, old: Any) -> Any:
    if isinstance(old, float) and choose.random() < 0.5:
        return choose.choice((old * 2, -old, str(old), 1e300))
    if isinstance(old, str) and choose.random() < 0.4:
        return choose.choice((old + "x", old[::-1], old * 100, "nan"))
    return choose.choice(VALUES)


# checkpoints


def mutant_trials(choose: Random, sound: Path) -> bytes:
    """Return a checkpoint of trials with arrays of other shapes, kinds or values and the right key, or damaged bytes."""
    raw = sound.read_bytes()
    how = choose.random()
    if how < 0.25:
        return mutated_bytes(choose, raw)
    if how < 0.4:
        return mutant_npz(choose, (2, 2))
    with np.load(sound) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for _ in range(choose.choice((1, 1, 2))):
        name = choose.choice(sorted(arrays))
        arrays[name] = _other_array(choose, arrays[name])
    if choose.random() < 0.1:
        arrays.pop(choose.choice(sorted(arrays)))
    out = io.BytesIO()
    save: Any = np.savez_compressed if choose.random() < 0.3 else np.savez
    save(out, **arrays)
    return with_bomb(out.getvalue(), choose.choice(sorted(arrays))) if choose.random() < 0.05 else out.getvalue()


def _other_array(choose: Random, old: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        if old.dtype.kind == "U":
            return np.array(choose.choice((f"{old}x", "", str(old)[:-1], 3, None, "\x1b[2J" * 50)))
        if old.dtype.kind not in "iuf" or not old.size:  # mutated before
            return np.zeros(3)
        old = np.atleast_1d(old)
        made: tuple[Any, ...] = (
            old[:-1], np.concatenate([old, old]), old[:, None], old.astype(str), old.astype(object), old.astype(complex), old * np.nan,
            np.full_like(old, np.inf), np.full_like(old, 1e308), -old, old * 0, old.reshape(()) if old.size == 1 else old[0], old[:0],
            old.astype(bool), np.zeros(3), np.zeros((0, 5)), old.astype("<f2"), old.astype([("a", "f8")]), old - 1e300,
        )  # fmt: skip
        return np.asarray(choose.choice(made))


def with_bomb(raw: bytes, name: str, *, n: int = 400_000_000) -> bytes:
    """Return an archive in which one array is gigabytes of zeros, packed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new:
        for info in old.infolist():
            if info.filename != f"{name}.npy":
                new.writestr(info.filename, old.read(info))
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (n,)})
        with new.open(f"{name}.npy", "w", force_zip64=True) as member:
            member.write(header.getvalue())
            for _ in range(100):
                member.write(bytes(8 * n // 100))
    return out.getvalue()


class Code:
    """What a pickle that runs code looks like."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("EXECUTED",)


def mutant_checkpoint(choose: Random, sound: Path, folder: Path) -> None:
    """Copy a training that was interrupted with its checkpoint changed: values, types, bytes, the pickle inside, or code in it."""
    import pickle

    shutil.copytree(sound, folder)
    path = folder / "checkpoint.pt"
    how = choose.random()
    if how < 0.2:
        path.write_bytes(mutated_bytes(choose, path.read_bytes()))
    elif how < 0.3:
        path.write_bytes(choose.choice((pickle.dumps(Code()), pickle.dumps({"key": Code()}), b"", mutant_npz(choose, (2,)))))
    elif how < 0.45:
        path.write_bytes(_inside(choose, path.read_bytes()))
    else:
        _changed_state(choose, path)


def _inside(choose: Random, raw: bytes) -> bytes:
    """Return the archive with one member changed: its pickle, or a tensor's bytes."""
    import pickle

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        chosen = choose.choice([*names, *[name for name in names if name.endswith("pkl")] * 3])
        for info in old.infolist():
            content = old.read(info)
            if info.filename == chosen:
                content = choose.choice((mutated_bytes(choose, content), pickle.dumps(Code()), content[: len(content) // 2]))
            new.writestr(info.filename, content)
    return out.getvalue()


def _changed_state(choose: Random, path: Path) -> None:
    """Write the state with one or two values of another kind, shape or size."""
    import torch

    state = torch.load(path, weights_only=True)
    for _ in range(choose.choice((1, 1, 2))):
        places = [(holder, key) for holder, key in _places(state)]
        holder, key = choose.choice(places)
        try:
            holder[key] = _other(choose, holder[key], torch)
        except TypeError:
            continue
        if choose.random() < 0.15 and isinstance(holder, dict):
            holder.pop(key, None)
    torch.save(state, path)


def _places(state: Any) -> list[tuple[Any, Any]]:
    keys = list(state) if isinstance(state, dict) else range(len(state)) if isinstance(state, list) else []
    return [place for key in keys for place in [(state, key), *_places(state[key])]]


def _other(choose: Random, old: Any, torch: Any) -> Any:
    if isinstance(old, torch.Tensor) and choose.random() < 0.7:
        changed = (
            old[None], old.reshape(-1)[:1], old.double(), old.to(torch.complex64), old * float("nan"), old.bool(), old.to_sparse(),
        )  # fmt: skip
        return choose.choice(changed)
    if isinstance(old, int | float) and not isinstance(old, bool) and choose.random() < 0.5:
        return choose.choice((old + 1, -old, old * 10**6, float("nan"), str(old)))
    return choose.choice((*INTEGERS, *FLOATS, *NAMES, None, [], {}, torch.zeros(2), {"a": torch.zeros(3, 3)}))


# tables of reliability


HEADERS = ("v (V),energy (pJ),p", "v_rel,energy_rel,p", "energy_rel,p,v_rel", "V [mV],Energy [fJ],P")


def mutant_reliability(choose: Random) -> bytes:
    """Return a damaged table of voltage, energy and error rate, at times a sound one."""
    header = choose.choice(HEADERS)
    n = choose.choice((1, 2, 3, 8, 300))
    names = [cell.split(" ")[0].lower().removesuffix("_rel") for cell in header.split(",")]
    rows = []
    for i in range(n):
        v = 0.5 + 0.5 * i / n
        values = {"v": f"{v:g}", "energy": f"{v * v:g}", "p": f"{10.0 ** (-1 - 5 * i / n):g}"}
        if choose.random() < 0.05:
            values[choose.choice(names)] = str(choose.choice((*FLOATS, *NAMES)))
        rows.append(",".join(values[name] for name in names))
    text = "\n".join([header, *rows]) + "\n"
    if choose.random() < 0.5:
        text = mutated_text(choose, text)
    raw = text.encode("utf-8", errors="replace")
    return mutated_bytes(choose, raw) if choose.random() < 0.2 else raw
