"""What each axis of many points does to a number: its mean at each value, and its share of the number's variance.

    share = sum_v n_v (m_v - m)^2 / sum_i (y_i - m)^2                                                               (1)

m_v is the mean of y over the n_v points at the value v of the axis, m that over all. In a whole grid the shares of the axes add up to at
most 1; what is missing is in their interaction (the main effects of an analysis of variance; Fisher, Statistical Methods for Research
Workers, 1925). Where an axis has many values, or hardly any value twice, as in designs that are no grid, neighbours are taken together,
about as many points in each group: single points would make all of the variance by themselves.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_VALUES, N_GROUPS, LEAST_POINTS = 12, 4, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Points at one value of an axis, or between two: the ends, how many points, and the mean of the number over them."""

    low: Any
    high: Any
    n: int
    mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What one axis does to one number; `share` is (1), None where the number is the same everywhere."""

    axis: str
    column: str
    groups: tuple[Group, ...]
    share: float | None


def effects(records: Sequence[Mapping[str, Any]], axes: Sequence[str], column: str) -> tuple[Effect, ...]:
    """Return what each axis with more than one value does to a column, over the records that have it as a number; largest first."""
    known = [record for record in records if _is_number(record.get(column))]
    found = [_effect(known, axis, column) for axis in axes if len({_name(record.get(axis)) for record in known}) > 1]
    return tuple(sorted(found, key=lambda effect: -(effect.share or 0.0)))


def _effect(records: Sequence[Mapping[str, Any]], axis: str, column: str) -> Effect:
    values = np.array([float(record[column]) for record in records])
    parts = _parts([record.get(axis) for record in records])
    mean = float(values.mean())
    largest = float(np.max(np.abs(values - mean))) or 1.0  # shares are of squares, which may be beyond floats
    total = float(np.sum(((values - mean) / largest) ** 2))
    between = sum(len(part) * ((float(values[part].mean()) - mean) / largest) ** 2 for _, _, part in parts)
    groups = tuple(Group(low=low, high=high, n=len(part), mean=float(values[part].mean())) for low, high, part in parts)
    return Effect(axis=axis, column=column, groups=groups, share=between / total if total > 0.0 else None)


def _parts(at: Sequence[Any]) -> list[tuple[Any, Any, np.ndarray]]:
    """Return the ends of each group of values, and which points are in it."""
    names = list(dict.fromkeys(map(_name, at)))
    few = len(names) <= MOST_VALUES and LEAST_POINTS * len(names) <= len(at)
    if few or not all(map(_is_number, at)) or len(at) < 2 * LEAST_POINTS:
        of = np.array([names.index(_name(value)) for value in at])
        members = [np.flatnonzero(of == i) for i in range(len(names))]
        groups = [(at[int(part[0])], at[int(part[0])], part) for part in members]
        return sorted(groups, key=lambda group: float(group[0])) if all(map(_is_number, at)) else groups
    order = np.argsort(np.array(at, dtype=float), kind="stable")
    return [(at[int(part[0])], at[int(part[-1])], part) for part in np.array_split(order, min(N_GROUPS, len(at) // LEAST_POINTS))]


def _name(value: Any) -> Any:
    return float(value) if _is_number(value) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
