"""Tables behind a spec: what `use` starts from, how tables merge, and where a `--set` path leads."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard, get_args

from devices import catalog
from devices.base.errors import SpecError
from devices.base.toml_codec import MAX_FILE_BYTES, Entry, entries, joined, parse_toml, read_text, shown

Table: TypeAlias = dict[str, Any]
Path_: TypeAlias = tuple[str, ...]

MAX_USE_DEPTH = 8
MAX_PATH_PARTS = 32
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'|[^.="\']+|[.=]')


# where a spec comes from


def load(source: str | Path) -> tuple[Table, str]:
    """Return the merged tables of a preset or a file, what it uses included, and a name for its origin."""
    return _load(source, folder=Path(), chain=())


def load_text(text: str, *, origin: str, folder: Path | None) -> tuple[Table, str]:
    """Return the merged tables of a spec text; it may use files only when `folder` says where they are."""
    return _with_base(parse_toml(text, origin=origin), origin=origin, folder=folder, chain=())


def _load(source: str | Path, *, folder: Path, chain: tuple[str, ...]) -> tuple[Table, str]:
    if isinstance(source, str) and source in catalog.names():
        text, key, place = catalog.text(source), source, None
    else:
        path = folder / source
        if chain:
            _refuse_other_files(str(source), path)
        _refuse_unknown(source, path)
        text = read_text(path)
        key, place = str(path.resolve()), path.parent
    if key in chain:
        raise SpecError(f"use: {' -> '.join((*chain, key))} is a circle; remove one `use`")
    if len(chain) >= MAX_USE_DEPTH:
        raise SpecError(f"use: more than {MAX_USE_DEPTH} specs deep at {key}; merge some")
    origin = str(source)
    table = parse_toml(text, origin=origin)
    table.setdefault("name", Path(source).stem)
    return _with_base(table, origin=origin, folder=place, chain=(*chain, key))


def _refuse_other_files(used: str, path: Path) -> None:
    """Refuse a `use` of what is no spec, by its name and by where links lead: a spec from elsewhere must not make us read other files."""
    try:
        leads_to = path.resolve().suffix
    except (OSError, RuntimeError, ValueError):
        return  # no such file, which is told next
    if not used.endswith(".toml") or leads_to != ".toml":
        raise SpecError(f"use: {shown(used)}: need the name of a preset, or of a spec file that ends in .toml")


def _refuse_unknown(source: str | Path, path: Path) -> None:
    if isinstance(source, Path) or "/" in source or source.endswith(".toml") or _exists(path):
        return
    raise SpecError(catalog.unknown(source) + "; a file's name ends in .toml")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _with_base(table: Table, *, origin: str, folder: Path | None, chain: tuple[str, ...]) -> tuple[Table, str]:
    if "use" not in table:
        return table, origin
    used = table.pop("use")
    if not isinstance(used, str):
        raise SpecError(f"{origin}: use: {shown(used)}: need the name of a preset or of a spec file")
    if folder is None and used not in catalog.names():
        raise SpecError(f"{origin}: use: {catalog.unknown(used)}; a text or preset may use presets only")
    try:
        base, base_origin = _load(used, folder=folder or Path(), chain=chain)
    except SpecError as error:
        raise SpecError(f"{origin}: use: {error}") from None
    return merged(base, table), f"{origin} (which uses {base_origin})"


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    """Return `base` with what `over` says instead; a table of another `kind` replaces the base's whole table."""
    result = _without_rivals(base, over)
    for name, value in over.items():
        old = result.get(name)
        result[name] = merged(old, value) if _nested(old, value) else value
    return result


RIVALS = frozenset(("error_rate_p", "energy_rel", "v_rel", "bit_error_rates_p"))
"""Operating points of a memory, of which there is one: giving one takes the others away."""


def _without_rivals(base: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    given = RIVALS & over.keys()
    return {name: value for name, value in base.items() if not given or name not in RIVALS}


def _nested(old: Any, value: Any) -> TypeGuard[Table]:
    return isinstance(value, dict) and isinstance(old, dict) and ("kind" not in value or value["kind"] == old.get("kind"))


def flattened(table: Mapping[str, Any], *, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Yield the leaves of nested tables with their paths."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from flattened(value, path=(*path, name))
        else:
            yield (*path, name), value


def lookup(table: Mapping[str, Any], path: Path_) -> Any:
    """Return what stands at a path, None where nothing does."""
    found: Any = table
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def assigned(table: Mapping[str, Any], path: Path_, *, value: Any) -> Table:
    """Return the table with `value` at `path`."""
    head, rest = path[0], path[1:]
    below = table.get(head)
    table = table if rest else _without_rivals(table, {head: value})
    return {**table, head: assigned(below if isinstance(below, dict) else {}, rest, value=value) if rest else value}


# paths of a record type


def dotted(path: Path_) -> str:
    """Return a path as TOML writes it."""
    text = ""
    for name in path:
        text = joined(text, name)
    return text


def paths(record_type: type, *, table: Mapping[str, Any] | None, per_layer: bool = False) -> Iterator[tuple[Path_, Entry | None]]:
    """Yield every leaf of a record type; with `table`, only the fields of the kinds that it has.

    The entry is None for `kind`. With `per_layer`, only what a layer may differ in.
    """
    for entry in entries(record_type):
        if per_layer and not entry.about.per_layer:
            continue
        inner = _present(entry, table)
        if entry.shape == "named":
            for name, one in (inner or {}).items():
                yield from (((entry.name, name, *path), leaf) for path, leaf in paths(_element(entry), table=one, per_layer=per_layer))
        elif entry.shape not in ("record", "family"):
            yield (entry.name,), entry
        elif table is None or inner is not None:
            for path, leaf in _inner(entry, inner, per_layer=per_layer):
                yield (entry.name, *path), leaf


def _element(entry: Entry) -> type:
    element: type = get_args(entry.hint)[0]
    return element


def _present(entry: Entry, table: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    inner = table.get(entry.name) if table is not None else None
    if isinstance(inner, Mapping):
        return inner
    return None if table is None or entry.shape == "family" or not entry.about.short else {}


def _inner(entry: Entry, table: Mapping[str, Any] | None, *, per_layer: bool) -> Iterator[tuple[Path_, Entry | None]]:
    if entry.shape == "record":
        yield from paths(entry.record_type, table=table, per_layer=per_layer)
        return
    yield ("kind",), None
    seen: set[Path_] = set()
    for kind, record_type in entry.kinds().items():
        if table is None or table.get("kind", kind) == kind:
            for path, leaf in paths(record_type, table=table, per_layer=per_layer):
                if path not in seen:
                    seen.add(path)
                    yield path, leaf


def _optional_tables(record_type: type, *, per_layer: bool) -> Iterator[Path_]:
    for entry in entries(record_type):
        if entry.shape in ("record", "family") and entry.optional and (entry.about.per_layer or not per_layer):
            yield (entry.name,)
        if entry.shape == "record":
            yield from ((entry.name, *path) for path in _optional_tables(entry.record_type, per_layer=per_layer))


def settable(record_type: type, *, per_layer: bool = False) -> dict[Path_, Entry | None]:
    """Return every path that may be given a value: leaves, and tables that may be absent."""
    tables = dict.fromkeys(_optional_tables(record_type, per_layer=per_layer))
    return dict(paths(record_type, table=None, per_layer=per_layer)) | tables


def resolved(record_type: type, path: Path_, *, table: Mapping[str, Any], layer: str | None = None) -> tuple[Path_, Entry | None]:
    """Return the full path that `path` stands for: itself, or the only leaf whose path it shortens.

    With `layer`, among what a layer may differ in. Raises SpecError with the candidates or the nearest fields.
    """
    per_layer = layer is not None
    every = settable(record_type, per_layer=per_layer)
    if path in every:
        return path, every[path]
    tables = dict.fromkeys(_optional_tables(record_type, per_layer=per_layer))
    present = dict(paths(record_type, table=table, per_layer=per_layer)) | tables
    matching = [full for full in present if _shortens(path, full)]
    if len(matching) == 1:
        return matching[0], present[matching[0]]
    where = "" if layer is None else dotted(("layers", layer)) + "."
    if matching:
        raise SpecError(f"{where}{dotted(path)}: ambiguous; one of {', '.join(map(dotted, matching))}")
    if any(_shortens(path, full) for full in settable(record_type).keys() - every.keys()):
        raise SpecError(f"{where}{dotted(path)}: a layer cannot differ in this; set it for the whole accelerator")
    inside = [dotted(full) for full in every if full[: len(path)] == path]
    if inside:
        raise SpecError(f"{where}{dotted(path)}: a table, not a value; set what is in it: {', '.join(inside)}")
    raise SpecError(f"{where}{dotted(path)[:200]}: unknown field{_nearest(path, tuple(every))}")


def _nearest(path: Path_, every: tuple[Path_, ...]) -> str:
    leaves = get_close_matches(path[-1][:64], sorted({full[-1] for full in every}), n=1)
    if not leaves:
        return "; `accelsim spec NAME` prints all there are"
    return f"; nearest: {', '.join(dotted(full) for full in every if full[-1] in leaves)}"


def _shortens(short: Path_, full: Path_) -> bool:
    left = iter(full)
    return short[-1:] == full[-1:] and all(name in left for name in short)


# --set


def split_assignment(text: str) -> tuple[Path_, str]:
    """Return the path and the value of `cell.error_rel=0.03`; names with dots may be quoted as in TOML."""
    if len(text) > MAX_FILE_BYTES:
        raise SpecError(f"--set: {len(text)} characters; need at most {MAX_FILE_BYTES}")
    names: list[str] = []
    position, part = 0, ""
    while token := _TOKEN.match(text, position):
        position = token.end()
        if token[0] in ".=":
            names.append(part)
            part = ""
            if token[0] == "=":
                break
        else:
            part += _unquoted(token[0])
    else:
        raise SpecError(f"--set {shown(text)}: need PATH=VALUE, e.g. cell.error_rel=0.03")
    if not all(names):
        raise SpecError(f"--set {shown(text)}: a name in the path is empty")
    if len(names) > MAX_PATH_PARTS:
        raise SpecError(f"--set {shown(text)}: {len(names)} names in the path; need at most {MAX_PATH_PARTS}")
    return tuple(names), text[position:].strip()


def _unquoted(token: str) -> str:
    if token[0] not in "\"'":
        return token.strip()
    return str(parse_toml(f"v = {token}", origin="--set")["v"])


def set_value(text: str, entry: Entry | None) -> Any:
    """Return the value of a `--set`: TOML where it is TOML, else the text itself (`20uS`, `none`, `nearest`)."""
    try:
        value = parse_toml(f"v = {text}\n", origin="--set")
    except SpecError:
        return text
    wanted: Any = str | dict if entry is None else str if entry.shape in ("str", "choice") else str | int | float
    if entry is not None and entry.shape == "floats":
        wanted = list
    return value["v"] if set(value) == {"v"} and isinstance(value["v"], wanted) else text


def split_layer_path(record_type: type, path: Path_, *, table: Mapping[str, Any], layers: Mapping[str, Any]) -> tuple[str, Path_]:
    """Return the name and the rest of a path after `layers`; an unquoted name with dots ends where a field begins."""
    every = settable(record_type)
    splits = [(".".join(path[:i]), path[i:]) for i in range(1, len(path))]
    for name, rest in splits:
        if rest in every:
            return name, rest
    for name, rest in splits:
        if name in layers:
            return name, rest
    for name, rest in splits:
        if any(_shortens(rest, full) for full, _ in paths(record_type, table=table)):
            return name, rest
    raise SpecError(f"layers.{'.'.join(path)}: need layers.NAME.FIELD, e.g. layers.\"features.0\".mapping.levels")
