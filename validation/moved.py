"""What moved between two versions of a table: cells beyond their intervals, other words, rows that came or went."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from validation.tables import Row

Z = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How the rows of a table are compared.

    Parameters
    ----------
    key
        Columns that say which row it is.
    value, low, high, se_rel
        The column that has an interval, and the columns of its ends, or of its relative standard error; empty where there is none.
        Moved is a value whose interval does not meet that of the other table.
    words
        Columns whose text must be the same.
    numbers, tolerance_rel
        Further columns of numbers ("*" for all others), and by how much they may differ.
    """

    key: tuple[str, ...]
    value: str = ""
    low: str = ""
    high: str = ""
    se_rel: str = ""
    words: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    tolerance_rel: float = 1e-3


def moved(kept: Sequence[Row], made: Sequence[Row], rule: Rule) -> tuple[str, ...]:
    """Return in words what differs between a table that was kept and one that was made anew."""
    before, after = (_by_key(rows, rule) for rows in (kept, made))
    found = [f"{name}: new" for name in after if name not in before]
    found += [f"{name}: gone" for name in before if name not in after]
    for name in before:
        if name in after:
            found += [f"{name}: {what}" for what in _differences(before[name], after[name], rule)]
    return tuple(found)


def _by_key(rows: Sequence[Row], rule: Rule) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for row in rows:
        name = " ".join(str(row.get(column, "")) for column in rule.key).strip()
        found[name if name not in found else f"{name} #{sum(k.split(' #')[0] == name for k in found) + 1}"] = row
    return found


def _differences(kept: Row, made: Row, rule: Rule) -> Iterator[str]:
    blank = [row for row in (kept, made) if rule.value and not row[rule.value]]  # no design, so no value
    if len(blank) == 1:
        yield f"{rule.value} {kept[rule.value] or 'none'} is {made[rule.value] or 'none'}"
    elif rule.value and not blank:
        a, b = (_interval(row, rule) for row in (kept, made))
        if a[0] > b[1] or b[0] > a[1]:
            yield f"{rule.value} {kept[rule.value]} ({a[0]:.4g} to {a[1]:.4g}) is {made[rule.value]} ({b[0]:.4g} to {b[1]:.4g})"
    for column in rule.words:
        if str(kept.get(column, "")) != str(made.get(column, "")):
            yield f"{column} {kept.get(column, '')} is {made.get(column, '')}"
    special = (*rule.key, rule.value, rule.low, rule.high, rule.se_rel, *rule.words)
    columns = [name for name in kept if name not in special] if rule.numbers == ("*",) else rule.numbers
    for column in columns:
        one, other = _number(kept.get(column)), _number(made.get(column))
        if one is None or other is None:
            if str(kept.get(column, "")) != str(made.get(column, "")) and rule.numbers != ("*",):
                yield f"{column} {kept.get(column, '')} is {made.get(column, '')}"
        elif abs(other - one) > rule.tolerance_rel * max(abs(one), abs(other)):
            yield f"{column} {one:.6g} is {other:.6g}"


def _interval(row: Row, rule: Rule) -> tuple[float, float]:
    value = float(row[rule.value])
    if rule.se_rel:
        half = Z * float(row[rule.se_rel]) * abs(value)
        return value - half, value + half
    return float(row[rule.low]), float(row[rule.high])


def _number(value: object) -> float | None:
    try:
        found = float(str(value))
    except ValueError:
        return None
    return found if math.isfinite(found) else None
