"""`python -m validation`: remake the tables that README and docs claim, and say what is beyond its bar."""

import argparse
import sys
from pathlib import Path

from validation.networks import DataMissingError
from validation.tables import NETWORKS, agreement_table, judged, resumed_table


def main(arguments: list[str] | None = None) -> int:
    """Make the tables; return 0 when every cell is within its bar."""
    parser = argparse.ArgumentParser(prog="python -m validation", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/tables"), help="folder of the tables (default docs/tables)")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), help="which networks (default: all four)")
    parser.add_argument("--quick", action="store_true", help="the embedded networks at two noise levels, to 3 %% in minutes")
    chosen = parser.parse_args(arguments)
    options: dict[str, object] = {"networks": tuple(chosen.networks)}
    name = "agreement.csv"
    if chosen.quick:
        options |= {"networks": ("fashion_cnn", "fashion_resnet"), "levels": (0.002, 0.03), "rel_error": 0.03}
        name = "agreement_quick.csv"
    try:
        rows = resumed_table(chosen.out / name, agreement_table, tell=lambda line: print(line, flush=True), **options)
    except DataMissingError as error:
        print(error, file=sys.stderr)
        return 2
    verdict = judged(rows)
    for what, cells in verdict.items():
        print(f"{what}: {cells}")
    return 1 if verdict["beyond_bar"] or verdict["wrongly_valid"] else 0


if __name__ == "__main__":
    sys.exit(main())
