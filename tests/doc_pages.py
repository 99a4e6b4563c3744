"""What the documentation prints for its readers to type, and a way to type it.

In how-to pages a block `console` has lines that run (`$ `), a block with `:caption: NAME` is that file, and a block `python` runs; all of a
page in its order, in one folder. `:class: not-run` is an illustration. On other pages, and in blocks `sh`, lines only have to parse.
"""

import contextlib
import io
import linecache
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

from accelsim.cli import main

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^( *)\.\. code-block:: (\w+)\n((?:\1   :[\w-]+: .*\n)*)\n((?:(?:\1   .*)?\n)+)", re.MULTILINE)
OPTION = re.compile(r":([\w-]+): (.*)")
OUTCOME = re.compile(r"# exit code (\d)")
WIDE = 20
"""Spaces after a verb that are no alignment of its arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block of code of a page."""

    language: str
    options: dict[str, str]
    text: str

    @property
    def kind(self) -> str:
        """What `:class:` says, or nothing."""
        return self.options.get("class", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One line of accelsim as it is printed, and the exit code that is promised."""

    words: tuple[str, ...]
    code: int


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of code of a page, in order."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8") + "\n")
    return [Block(language=m[2], options=dict(OPTION.findall(m[3])), text=dedent(m[4]).strip("\n") + "\n") for m in found]


def commands_of(block: Block) -> list[Command]:
    """Return the lines of accelsim in a block, without prompt and comment; those with `...` are abridged, and left out."""
    return [command for line in block.text.splitlines() if block.language in ("console", "sh") for command in _commands(line)]


def _commands(line: str) -> Iterator[Command]:
    code = OUTCOME.search(line)
    for part in _uncommented(line.removeprefix("$ ")).split("&&"):
        if part.strip().startswith("accelsim ") and "..." not in part:
            yield Command(words=tuple(shlex.split(part)[1:]), code=int(code[1]) if code else 0)


def _uncommented(line: str) -> str:
    """Return what the shell makes of a line: no comment, and a number for a variable of its own."""
    return re.sub(r"\$\w+", "1", re.sub(r"\s+#.*$", "", line))


def readme_commands(text: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of each line of accelsim in README's list, whose explanations stand behind spaces."""
    for line in re.findall(r"^accelsim .*$", text, re.MULTILINE):
        verb, gap, rest = re.split(r"( +)", line.removeprefix("accelsim "), maxsplit=1)
        yield (verb, *shlex.split("" if len(gap) >= WIDE else re.split(r" {2,}", rest)[0]))


def type_page(page: Path, *, known: dict[str, Any]) -> Iterator[tuple[str, int, str]]:
    """Do in this folder what a page says; yield each command with its exit code less the one promised, and what it said."""
    for block in blocks_of(page):
        if block.kind:
            continue
        if "caption" in block.options:
            Path(block.options["caption"]).write_text(block.text, encoding="utf-8")
        elif block.language == "console":
            yield from (_typed(command) for command in commands_of(block))
        elif block.language == "python":
            _run_python(block, name=f"<{page.name}, {len(linecache.cache)}>", known=known)


def _run_python(block: Block, *, name: str, known: dict[str, Any]) -> None:
    linecache.cache[name] = len(block.text), None, block.text.splitlines(keepends=True), name  # functions have a source, as in a file
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(block.text, name, "exec"), known)


def _typed(command: Command) -> tuple[str, int, str]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(command.words)
    return shlex.join(("accelsim", *command.words)), code - command.code, said.getvalue()
