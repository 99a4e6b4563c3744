"""Random changes to bytes, text and plain values, of which mutants of every format are made. All take a seeded `random.Random`."""

import copy
import math
from collections.abc import Callable
from random import Random
from typing import Any, TypeAlias

Tree: TypeAlias = dict[str, Any] | list[Any]

INTEGERS = (0, 1, -1, 2, 3, 7, 255, 65_536, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53 + 1, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-320, 1e-30, 1e30, 3.5e38, -1e308, math.nan, math.inf, -math.inf)
NAMES = (
    "", " ", ".", "..", "../secret.bin", "/etc/passwd", "/dev/zero", "a\x1b[31mb",
    "a\nb", "a\rb", "a\x00b", "x" * 5000, "\u202e", "caf\u00e9",
    "\U0001f600", "%s%n", "{0}", "$(id)", "-1", "none", "None", "nan", "x", "y", "1", "a.b", 'a"b', "a'b", "\\", "NAN.weight",
    ".weight", "\x7f",
)  # fmt: skip


def mutated_bytes(choose: Random, raw: bytes, *, other: bytes = b"") -> bytes:
    """Return bytes with one to four flips, cuts, insertions, repetitions, or pieces of `other`."""
    made = bytearray(raw)
    for _ in range(choose.choice((1, 1, 2, 4))):
        at, n = choose.randrange(len(made) + 1), choose.choice((1, 1, 2, 4, 16, 256))
        how = choose.randrange(7)
        if how == 0 and made:
            made[at % len(made)] ^= 1 << choose.randrange(8)
        elif how == 1:
            made[at : at + n] = choose.choice((b"\x00", b"\xff", b"\x7f")) * n
        elif how == 2:
            del made[at : at + n]
        elif how == 3:
            made[at:at] = choose.randbytes(n)
        elif how == 4:
            made[at:at] = made[at : at + n] * choose.choice((1, 2, 50))
        elif how == 5:
            del made[at:]
        else:
            start = choose.randrange(len(other) + 1)
            made[at : at + n] = other[start : start + n]
    return bytes(made)


def mutated_text(choose: Random, text: str) -> str:
    """Return text with one to four lines or characters taken out, moved, repeated, or replaced."""
    for _ in range(choose.choice((1, 1, 1, 2, 4))):
        lines = text.split("\n")
        at, how = choose.randrange(len(lines)), choose.randrange(8)
        if how == 0:
            del lines[at]
        elif how == 1:
            lines.insert(at, choose.choice(lines))
        elif how == 2:
            lines[at] = lines[at] * choose.choice((2, 40, 3000))
        elif how == 3:
            new = choose.choice(("", "=", "[", "]]", '"""', "{", "e999", "\t", "9" * 400))
            lines[at] = lines[at].replace(choose.choice("=[]{}\".,_ 0123"), new, 1)
        elif how == 4:
            lines.insert(at, choose.choice(NAMES))
        elif how == 5:
            place = choose.randrange(len(lines[at]) + 1)
            new = choose.choice((*"\x00\x0c\"'[]{}=#.,-+eE\ufeff\u202e", "[" * 500, "{a=" * 400))
            lines[at] = lines[at][:place] + new + lines[at][place:]
        elif how == 6:
            other = choose.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        else:
            lines = lines[:at] if at else lines
        text = "\n".join(lines)
    return text


def encoded_text(choose: Random, text: str) -> bytes:
    """Return text as UTF-8, at times with the marks, line ends and encodings of other systems, at times with damaged bytes."""
    how = choose.randrange(20)
    codecs = {0: "utf-16", 1: "utf-8-sig", 2: "latin-1", 3: "utf-32"}
    if how == 4:
        text = text.replace("\n", "\r\n")
    raw = text.encode(codecs.get(how, "utf-8"), errors="replace" if how in codecs else "surrogatepass")
    return mutated_bytes(choose, raw) if how > 17 else raw


def mutated_tree(choose: Random, tree: Tree, value: Callable[[Random, Any], Any], *, pool: tuple[Any, ...]) -> Tree:
    """Return tables and lists with one to three entries changed by `value`, taken out, renamed, repeated, moved or nested."""
    made: Tree = copy.deepcopy(tree)
    for _ in range(choose.choice((1, 1, 1, 2, 3))):
        places = list(_places(made))
        if not places:
            return made
        holder, key = choose.choice(places)
        how = choose.randrange(12)
        if how < 6:
            holder[key] = copy.deepcopy(value(choose, holder[key]))  # what is chosen from is shared
        elif how == 6:
            del holder[key]
        elif how == 7 and isinstance(holder, dict):
            holder[choose.choice((str(key) + "_", str(key)[1:], str(key).upper(), *NAMES))] = holder[key]
        elif how == 8 and isinstance(holder, dict):
            holder[choose.choice((str(key)[:-1], str(key) + "s", *NAMES))] = holder.pop(key)
        elif how == 9:
            other, name = choose.choice(places)
            moved = copy.deepcopy(other[name]) if _holds(other, name) else None
            holder[key] = moved
        elif how == 10:
            holder[key] = nested(choose, holder[key])
        else:
            holder[key] = copy.deepcopy(choose.choice(pool))
    return made


def nested(choose: Random, value: Any) -> Any:
    """Return a value in lists or tables, few or very many deep."""
    for _ in range(choose.choice((1, 1, 2, 60, 90))):
        value = [value] if choose.random() < 0.5 else {"a": value}
    return value


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Return every entry as its holder and key."""
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        holder = waiting.pop()
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            found.append((holder, key))
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])
    return found


def _holds(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)
