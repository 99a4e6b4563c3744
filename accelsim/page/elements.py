"""Pieces of HTML. Everything that is text comes in as text and goes out escaped; nothing else is ever put into a page."""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from devices.base.quantity import SUFFIXES, format_quantity, percent

NOT_SHOWN = "\ufffd"
_DROPPED = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL)
_SHARES = ("share", "busy", "blocked", "starved", "utilization", "dac_clipped", "adc_clipped", "change_rel")
_WORDS = {"mse": "MSE", "adc": "ADC", "dac": "DAC", "ii": "interval", "n": "number of", "rel": "(relative)"}
MOST_RECORDS = 60


def text(value: object) -> str:
    """Return text that HTML reads as this text and nothing else; characters that cannot be seen are shown as such."""
    return html.escape("".join(c if c in "\n\t" or c.isprintable() else NOT_SHOWN for c in str(value)), quote=True)


def paragraph(words: str, *, kind: str = "") -> str:
    """Return a paragraph of plain text."""
    return f"<p{_class(kind)}>{text(words)}</p>"


def bullets(lines: Iterable[str], *, kind: str = "") -> str:
    """Return a list of plain text."""
    return f"<ul{_class(kind)}>{''.join(f'<li>{text(line)}</li>' for line in lines)}</ul>"


def code(words: str) -> str:
    """Return text as it is typed, scrolled inside its own frame."""
    return f'<pre tabindex="0">{text(words)}</pre>'


def section(heading: str, *parts: str, name: str, level: int = 2) -> str:
    """Return a section that can be linked to; nothing where it has no parts."""
    inside = "".join(part for part in parts if part)
    return f'<section id="{text(name)}"><h{level}>{text(heading)}</h{level}>{inside}</section>' if inside else ""


def facts(rows: Sequence[tuple[str, str]], *, caption: str) -> str:
    """Return a table of what it is and its value."""
    body = "".join(f'<tr><th scope="row">{text(name.strip())}</th><td>{text(value)}</td></tr>' for name, value in rows)
    return _framed(f"<caption>{text(caption)}</caption><tbody>{body}</tbody>", label=caption, kind="facts") if rows else ""


def records(rows: Sequence[Mapping[str, Any]], *, caption: str, most: int = MOST_RECORDS) -> str:
    """Return a table of flat records, numbers with the units of their names; beyond `most`, how many there are."""
    if not rows:
        return ""
    names = list(dict.fromkeys(name for row in rows for name in row))
    kinds = {name: _alignment(rows, name) for name in names}
    head = "".join(f'<th scope="col"{_class(kinds[name])}>{text(column_title(name))}</th>' for name in names)
    body = "".join(f"<tr>{''.join(_cell(n, row.get(n), kind=kinds[n], first=n == names[0]) for n in names)}</tr>" for row in rows[:most])
    told = caption if len(rows) <= most else f"{caption}: the first {most} of {len(rows)}; table.csv of the run has them all"
    return _framed(f"<caption>{text(told)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>", label=caption)


def _framed(inside: str, *, label: str, kind: str = "") -> str:
    return f'<div class="wide" role="region" tabindex="0" aria-label="{text(label)}"><table{_class(kind)}>{inside}</table></div>'


def _class(kind: str) -> str:
    return f' class="{text(kind)}"' if kind else ""


def _alignment(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    return "number" if any(_is_number(row.get(name)) for row in rows) else ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(name: str, value: Any, *, kind: str, first: bool) -> str:
    shown = text(formatted(name, value))
    return f'<th scope="row"{_class(kind)}>{shown}</th>' if first else f"<td{_class(kind)}>{shown}</td>"


def _unit(name: str) -> str | None:
    unit = SUFFIXES.get(name.rpartition("_")[2]) if "_" in name else None
    return None if unit in ("relative", "probability") else unit


def column_title(name: str) -> str:
    """Return a field's name without its unit, in words."""
    words = (name.rpartition("_")[0] if _unit(name) else name).split("_")
    return " ".join(_WORDS.get(word, word) for word in words)


def formatted(name: str, value: Any) -> str:
    """Return a value as it is read: with the unit that its field's name has, shares in percent."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if name in _SHARES or name.startswith("accuracy"):
        return percent(value, 1)
    unit = _unit(name)
    return f"{value:.4g}" if unit is None or not math.isfinite(value) else format_quantity(value, unit, n_digits=4)


def figure(svg: str, *, number: int, caption: str) -> str:
    """Return an SVG picture inside the page: its names apart from other pictures', told by its caption to who cannot see it."""
    inside = _DROPPED.sub("", svg).strip()
    inside = re.sub(r'\bid="', f'id="f{number}-', inside)
    inside = re.sub(r'(href="#|url\(#)', rf"\1f{number}-", inside)
    opening = re.compile(r"<svg\b[^>]*?viewBox=\"([0-9. -]+)\"[^>]*>", re.DOTALL)
    alt = f'<svg class="picture" viewBox="\\1" role="img" aria-label="{_literal(text(caption))}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    inside = opening.sub(alt, inside, count=1)
    frame = f'<div class="wide" role="region" tabindex="0" aria-label="picture {number}">{inside}</div>'
    return f"<figure>{frame}<figcaption>{text(caption)}</figcaption></figure>"


def _literal(replacement: str) -> str:
    return replacement.replace("\\", r"\\")
