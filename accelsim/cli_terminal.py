"""What the command line says on stderr: notes, errors, progress. Answers are on stdout and are not here."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

REPORT_EVERY_S = 5.0
SILENCES_S = 10.0, 30.0, 60.0, 120.0
"""How long nothing is said until it is said that work goes on, the first time, the second, ..., and from then on."""


class _Voice:
    """When something was last said on stderr, and whether a line of progress is open there."""

    said_s = 0.0
    is_open = False


def say(text: str) -> None:
    """Write one message; control characters, which names in files may hold, do not reach the terminal."""
    _Voice.said_s = time.monotonic()
    print(printable(text), file=sys.stderr, flush=True)


@contextmanager
def heard(what: str, silences_s: tuple[float, ...] = SILENCES_S) -> Iterator[None]:
    """Say now and then that work goes on, where nothing else has been said for long."""
    done, started_s = threading.Event(), time.monotonic()
    _Voice.said_s = started_s

    def listen() -> None:
        waits, hint = list(silences_s), "; a first run compiles for some seconds"
        while not done.wait(0.1 * waits[0]):
            if not _Voice.is_open and time.monotonic() - _Voice.said_s >= waits[0]:
                say(f"... {what}: at work for {time.monotonic() - started_s:.0f} s{hint}")
                waits, hint = waits[1:] or waits, ""

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def printable(text: str) -> str:
    """Return text without control characters other than newlines."""
    return "".join(c if c == "\n" or c.isprintable() else "?" for c in text)


def show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None, line: str | None = None
) -> None:
    """Stand in for `warnings.showwarning`: one line, without the source."""
    say("note: " + " ".join(str(message).split()))


class Line:
    """Tells how far something is: one line that is renewed on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self.is_terminal = sys.stderr.isatty()
        self.last_s = time.monotonic()
        self.is_open = False

    def tell(self, text: str) -> None:
        """Tell how far it is."""
        now = time.monotonic()
        if self.is_terminal:
            print(f"\r{text:<70}", end="", file=sys.stderr, flush=True)
            self.is_open = _Voice.is_open = True
        elif now - self.last_s >= REPORT_EVERY_S:
            self.last_s = now
            say(text)

    def close(self) -> None:
        """End the line, if one is open."""
        if self.is_open:
            print(file=sys.stderr, flush=True)
            self.is_open = _Voice.is_open = False


class TrialProgress:
    """Tells how far Monte-Carlo is."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.line = Line()

    def __call__(self, n_trials: int, max_trials: int, half_width_rel: float) -> None:
        """Take news of Monte-Carlo: trials done, the most there can be, relative half-width."""
        self.line.tell(f"{self.label}: {n_trials} trials, interval +- {100 * half_width_rel:.2f} %")

    def close(self) -> None:
        """End the line, if one is open."""
        self.line.close()
