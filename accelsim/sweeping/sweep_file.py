"""The file of a sweep or a search: which network and samples, which spec, what varies, what is asked.

    schema = 1
    network = "my_net.onnx"                       # or an embedded one; paths are from the file's folder
    inputs = "my_images.npz"
    spec = "my_chip.toml"                         # or a preset
    run = "predict"
    seed = 7
    out = "runs/grid"
    [axes]
    cell.programming.error_rel = [0.01, 0.02, 0.05]
    mapping.g_used_siemens = { low = "5 uS", high = "25 uS", n = 9 }
    [options]
    method = "adjoint"
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelsim.spec import dotted
from devices.base.errors import SpecError
from devices.base.quantity import parse_quantity, unit_of
from devices.base.toml_codec import Faults, parse_toml, read_text

SCHEMA = 1
MAX_FILE_BYTES = 4 * 2**20
_COMMON: Mapping[str, type] = {
    "schema": int, "network": str, "inputs": str, "calibration": str, "spec": str, "set": list, "run": str, "seed": int, "out": str,
    "options": dict,
}  # fmt: skip
OF_SWEEP: Mapping[str, type] = {**_COMMON, "design": str, "n_points": int, "axes": dict, "points": list}
OF_SEARCH: Mapping[str, type] = {
    **{name: kind for name, kind in _COMMON.items() if name != "run"}, "space": dict, "objectives": list, "constraints": list,
    "n_trials": int, "batch": int, "sampler": str, "scales": str,
}  # fmt: skip
_OF_FILE = ("schema", "network", "inputs", "calibration", "spec", "set", "seed", "out")
_WORDS = {int: "a whole number", str: "text in quotes", list: "a list", dict: "a table"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepFile:
    """What a file asks; `asked` are the arguments of `sweep` or `explore` that it gives."""

    network: str
    inputs: str | None
    calibration: str | None
    spec: str
    set: tuple[str, ...] = ()
    seed: int | None
    out: str | None
    asked: dict[str, Any] = field(default_factory=dict)


def read_sweep_file(path: str | Path, *, known: Mapping[str, type] = OF_SWEEP) -> SweepFile:
    """Return what a file asks; SpecError with every fault of its form at once."""
    place = Path(path)
    table = parse_toml(read_text(place, max_bytes=MAX_FILE_BYTES), origin=str(path), max_bytes=MAX_FILE_BYTES)
    faults = Faults(str(path))
    _check(table, known, faults)
    faults.raise_if_any()
    asked = {name: value for name, value in table.items() if name not in _OF_FILE}
    for name in ("axes", "space"):
        if name in asked:
            asked[name] = dict(flat_axes(asked[name]))
    if "points" in asked:
        asked["points"] = [dict(flat_axes(point)) for point in asked["points"]]
    if "options" in asked:
        asked["options"] = {name: option_value(name, value) for name, value in asked["options"].items()}
    return SweepFile(
        network=_beside(place, table["network"]), inputs=_maybe_beside(place, table.get("inputs")),
        calibration=_maybe_beside(place, table.get("calibration")), spec=_beside(place, table.get("spec", "memse")),
        set=tuple(table.get("set", [])), seed=table.get("seed"), out=_maybe_beside(place, table.get("out")), asked=asked,
    )  # fmt: skip


def _check(table: Mapping[str, Any], known: Mapping[str, type], faults: Faults) -> None:
    for name, value in table.items():
        if name not in known:
            faults.add_unknown("", name, known=tuple(known))
        elif not isinstance(value, known[name]) or isinstance(value, bool):
            faults.add(name, f"need {_WORDS[known[name]]}", value=value)
    if table.get("schema", SCHEMA) != SCHEMA:
        faults.add("schema", f"need {SCHEMA}; this version reads no other", value=table["schema"])
    if "network" not in table:
        faults.add("network", "missing; need an ONNX file, or fashion_cnn or fashion_resnet")
    seed = table.get("seed", 0)
    if isinstance(seed, int) and not 0 <= seed < 2**63:
        faults.add("seed", "need a whole number from 0 to 2^63 - 1", value=seed)
    for name in ("set", "objectives", "constraints"):
        listed = table.get(name, [])
        if isinstance(listed, list) and not all(isinstance(text, str) for text in listed):
            faults.add(name, "need texts", value=listed)
    points = table.get("points", [])
    if isinstance(points, list) and not all(isinstance(point, dict) for point in points):
        faults.add("points", "need tables: [[points]]", value=points)


def flat_axes(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield the axes of nested tables, as `cell.programming.error_rel = [...]` makes them, by their dotted paths."""
    for name, value in table.items():
        if isinstance(value, dict) and not {"low", "high"} & set(value):
            yield from flat_axes(value, (*path, name))
        else:
            yield (".".join((*map(_one, path), _one(name))) if path else name), value


def _one(name: str) -> str:
    """Return a name of a path; one that was a quoted path of its own stays as it is."""
    return name if all(part.isidentifier() for part in name.split(".")) else dotted((name,))


def option_value(name: str, value: Any) -> Any:
    """Return an option of a run, a quantity with the unit that its name declares in SI."""
    unit = unit_of(name)
    if not isinstance(value, str) or unit in ("number", "relative", "probability"):
        return value
    try:
        return parse_quantity(value, unit)
    except SpecError as error:
        raise SpecError(f"options: {name}: {value[:64]!r}: {error}") from None


def _maybe_beside(place: Path, name: str | None) -> str | None:
    return None if name is None else str(place.parent / name)


def _beside(place: Path, name: str) -> str:
    """Return a file beside the sweep's, or a preset's or embedded network's name."""
    path = place.parent / name
    return str(path) if "/" in name or Path(name).suffix else name
