"""What the command line answers on stdout, and with which exit code."""

import argparse
import json
from collections.abc import Mapping
from typing import Any

from accelsim._version import __version__
from accelsim.cli_terminal import printable
from accelsim.report.base import clean
from accelsim.report.files import RUN_SCHEMA

FINE, NO, INTERRUPTED = 0, 1, 130


def head(
    options: argparse.Namespace, *, name: str | None = None, digest: str | None = None, spec_digest: str | None = None
) -> dict[str, Any]:
    """Return what every JSON answer begins with, for answers that are no reports."""
    return {
        "schema": RUN_SCHEMA, "kind": options.verb, "version": __version__, "seed": options.seed,
        "network": {"name": name, "digest": digest}, "spec_digest": spec_digest, "output": None, "reference": None, "warnings": [],
    }  # fmt: skip


def answer(options: argparse.Namespace, *, text: str, record: Mapping[str, Any]) -> None:
    """Print an answer, as text or as JSON."""
    print(json.dumps(clean(dict(record)), indent=2, allow_nan=False) if options.json else printable(text), flush=True)


def check_out(options: argparse.Namespace) -> None:
    """Refuse an `--out` that could not be written, before anything is computed."""
    if options.out is not None:
        from accelsim.report.run_folder import check_new

        check_new(options.out)
