"""Reports as plain JSON and arrays, and back, driven by the type hints of their fields: strict, and never a pickle."""

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from accelsim.design import Design
from devices.base.errors import RunFolderError

Arrays = Mapping[str, np.ndarray]
_NOT_FINITE = ("nan", "inf", "-inf")


def encoded(record: Any) -> Any:
    """Return a record as JSON types; arrays are left out (see `arrays_of`), designs are their TOML."""
    if isinstance(record, Design):
        return record.to_toml()
    if dataclasses.is_dataclass(record):
        return {field.name: encoded(getattr(record, field.name)) for field in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {str(key): encoded(value) for key, value in record.items()}
    if isinstance(record, tuple | list):
        return [encoded(value) for value in record]
    if isinstance(record, np.ndarray):
        return "array"
    if isinstance(record, np.generic):
        return encoded(record.item())
    if isinstance(record, float) and not math.isfinite(record):
        return repr(record)
    return record


def arrays_of(record: Any, *, prefix: str = "") -> dict[str, np.ndarray]:
    """Return the arrays of a record and of the records in it, by the names of their fields."""
    found: dict[str, np.ndarray] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if isinstance(value, np.ndarray):
            found[prefix + field.name] = value
        elif dataclasses.is_dataclass(value) and not isinstance(value, Design):
            found |= arrays_of(value, prefix=f"{prefix}{field.name}_")
    return found


def decoded(record_type: type, raw: Any, *, arrays: Arrays, path: str = "") -> Any:
    """Return the record that `encoded` and `arrays_of` made; RunFolderError names the field that is not as it must be.

    Fields with a default may be missing: a record that was written before there were any.
    """
    hints = get_type_hints(record_type)
    fields = {field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(record_type)}
    needed = {name for name, is_needed in fields.items() if is_needed}
    if not isinstance(raw, dict) or not needed <= set(raw) <= set(fields):
        odd = sorted((set(raw) - set(fields)) | (needed - set(raw))) if isinstance(raw, dict) else [f"no table but {type(raw).__name__}"]
        raise _fault(path or record_type.__name__, f"fields missing or unknown: {', '.join(str(name)[:60] for name in odd[:8])}")
    return record_type(**{name: _value(hints[name], raw[name], arrays=arrays, path=f"{path}{name}") for name in fields if name in raw})


def _value(hint: Any, raw: Any, *, arrays: Arrays, path: str) -> Any:
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:  # plain data: numbers, texts, lists and tables
        return raw
    if origin is Literal:
        return _choice(parts, raw, path=path)
    if origin is types.UnionType:
        if raw is None:
            return None
        return _value(next(part for part in parts if part is not types.NoneType), raw, arrays=arrays, path=path)
    if origin is np.ndarray:
        return _array(raw, arrays=arrays, path=path)
    if origin is dict and isinstance(raw, dict):
        return {key: _value(parts[1], value, arrays=arrays, path=f"{path}.{key}") for key, value in raw.items()}
    if origin is tuple and isinstance(raw, list):
        return _tuple(parts, raw, arrays=arrays, path=path)
    if hint is Design and isinstance(raw, str):
        return Design.from_text(raw, origin=path)
    if dataclasses.is_dataclass(hint) and hint is not Design:
        return decoded(hint, raw, arrays=arrays, path=f"{path}_")  # type: ignore[arg-type]
    return _scalar(hint, raw, path=path)


def _choice(parts: tuple[Any, ...], raw: Any, *, path: str) -> Any:
    if raw not in parts:
        raise _fault(path, f"need {' | '.join(map(str, parts))}")
    return raw


def _tuple(parts: tuple[Any, ...], raw: list[Any], *, arrays: Arrays, path: str) -> tuple[Any, ...]:
    kinds = [parts[0]] * len(raw) if parts[-1] is Ellipsis else list(parts)
    if len(kinds) != len(raw):
        raise _fault(path, f"need {len(kinds)} values, got {len(raw)}")
    return tuple(_value(kind, value, arrays=arrays, path=f"{path}[{i}]") for i, (kind, value) in enumerate(zip(kinds, raw)))


def _array(raw: Any, *, arrays: Arrays, path: str) -> np.ndarray:
    if raw != "array" or path not in arrays:
        raise _fault(path, "the array is missing")
    array = arrays[path]
    if array.dtype.kind != "f":
        raise _fault(path, f"need an array of floats, got {array.dtype}")
    return array


def _scalar(hint: Any, raw: Any, *, path: str) -> Any:
    if hint is float and raw in _NOT_FINITE:
        return float(raw)
    wanted = (int, float) if hint is float else hint
    if not isinstance(hint, type) or not isinstance(raw, wanted) or (isinstance(raw, bool) and hint is not bool):
        raise _fault(path, f"need {getattr(hint, '__name__', hint)}, got {type(raw).__name__}")
    try:
        return float(raw) if hint is float else raw
    except OverflowError:
        raise _fault(path, "need a number within floats, got a huge integer") from None


def _fault(path: str, what: str) -> RunFolderError:
    return RunFolderError(f"{path}: {what}")
