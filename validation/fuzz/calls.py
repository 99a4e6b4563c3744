"""Functions that read files and have no verb of the command line, called as if they had one."""

from collections.abc import Callable, Sequence
from pathlib import Path

from accelsim import AccelsimError
from accelsim.cli_terminal import say


def _reliability(argv: Sequence[str]) -> None:
    from devices.reliability_table import read_reliability

    read_reliability(Path(argv[0]), source="a test", energy_reference="its highest voltage")


def _report(argv: Sequence[str]) -> None:
    from accelsim import load_report

    str(load_report(Path(argv[0])))


CALLS: dict[str, Callable[[Sequence[str]], None]] = {"read_reliability": _reliability, "load_report": _report}


def call(argv: Sequence[str]) -> int:
    """Call the function that `argv` begins with, and end as the command line does."""
    try:
        CALLS[argv[0]](argv[1:])
    except AccelsimError as error:
        say(f"accelsim: error: {error}")
        return 2
    return 0
