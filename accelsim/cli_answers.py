"""What the command line answers on stdout, and with which exit code."""

import argparse
import json
from collections.abc import Mapping
from typing import Any

from accelsim.cli_terminal import printable
from accelsim.report.base import clean

FINE, NO, INTERRUPTED = 0, 1, 130


def answer(options: argparse.Namespace, *, text: str, record: Mapping[str, Any]) -> None:
    """Print an answer, as text or as JSON."""
    print(json.dumps(clean(dict(record)), indent=2, allow_nan=False) if options.json else printable(text), flush=True)


def check_out(options: argparse.Namespace) -> None:
    """Refuse an `--out` that could not be written, before anything is computed."""
    if options.out is not None:
        from accelsim.report.run_folder import check_new

        check_new(options.out)
