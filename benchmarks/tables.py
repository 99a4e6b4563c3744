"""Tables: on a terminal, ready to be pasted, and as files that are made again in parts."""

import csv
from pathlib import Path

from validation.tables import Row, write_rows


def shown_table(rows: list[Row]) -> str:
    """Return the rows as Markdown, under the columns of all of them that are not empty."""
    columns = [c for c in dict.fromkeys(c for row in rows for c in row) if any(str(row.get(c, "")) for row in rows)]
    cells = [columns, *([str(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def updated(path: Path, fresh: list[Row], *, key: tuple[str, ...]) -> list[Row]:
    """Put rows into the table `path` in place of those that are equal in `key`; the others stay. Return all rows."""
    kept = list(csv.DictReader(path.open())) if path.exists() else []
    replaced = {tuple(str(row[k]) for k in key) for row in fresh}
    table: list[Row] = [row for row in kept if tuple(row[k] for k in key) not in replaced] + fresh
    write_rows(path, table)
    return table
