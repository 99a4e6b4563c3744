"""One point of a sweep, and how its values are shown."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from devices.base.quantity import UNITS, format_quantity, unit_of

LARGER_IS_BETTER = ("accuracy_predicted", "accuracy", "throughput_per_s", "saving_total_rel")
NESTED_AGAIN = ("predicted", "simulated")
"""Parts of an answer that repeat what stands beside them."""
LONG_TEXT = 80


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SweepPoint:
    """One point of a sweep.

    Parameters
    ----------
    key
        Digest of all that its answer depends on; the name of its file.
    values
        The value of each axis, numbers in SI.
    status
        `done`, `failed` (see `error`), or `missing`: not computed yet.
    answer
        What was computed, by the names of the JSON.
    """

    key: str
    values: dict[str, Any]
    status: str
    answer: dict[str, Any]
    error: str
    elapsed_s: float

    def record(self) -> dict[str, Any]:
        """Return one flat record: the axes, the status, and every number and short text of the answer, dotted."""
        axes = {name: flat_value(value) for name, value in self.values.items()}
        failed = {"error": self.error} if self.error else {}
        return axes | {"status": self.status} | dict(flat_items(self.answer)) | failed


def flat_value(value: Any) -> Any:
    """Return a value of an axis as a table and a coordinate take it."""
    return str(value) if isinstance(value, list | dict) else value


def flat_items(answer: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the numbers and short texts of an answer, their names dotted."""
    for name, value in answer.items():
        if isinstance(value, Mapping):
            if name not in NESTED_AGAIN:
                yield from flat_items(value, f"{path}{name}.")
        elif not isinstance(value, list) and not (isinstance(value, str) and len(value) > LONG_TEXT):
            yield path + name, value


def axis_text(path: str, value: Any) -> str:
    """Return a value of an axis as a table shows it; `none` is one, as in a spec."""
    return "none" if value is None else value_text(path, value)


def coordinate(values: Sequence[Any]) -> list[Any]:
    """Return the values of an axis as a coordinate: numbers, NaN for `none` among them, or texts where they are of several kinds."""
    plain = [flat_value(value) for value in values]
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in plain]
    if all(is_number or value is None for is_number, value in zip(numbers, plain)) and any(numbers):
        return [math.nan if value is None else value for value in plain]
    return plain if len({type(value) for value in plain}) == 1 and plain[0] is not None else list(map(_text, plain))


def _text(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def value_text(name: str, value: Any) -> str:
    """Return a value as a table shows it, with the unit that its name declares."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    unit = unit_of(name.rpartition(".")[2])
    return f"{value:.4g}" if name.endswith("_per_s") or not UNITS[unit].symbol else format_quantity(value, unit, n_digits=4)
