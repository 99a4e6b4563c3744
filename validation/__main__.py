"""`python -m validation`: remake the tables that README and docs claim, and say what is beyond its bar."""

import argparse
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from validation.chips import NETWORKS as CHIP_NETWORKS
from validation.chips import chip_table
from validation.networks import DataMissingError
from validation.specs import NETWORKS, spec_table
from validation.specs import judged as judged_specs
from validation.tables import AGREEMENT, CLOSURES, DEEP, QUICK, agreement_table, judged, resumed_table, write_rows


def main(arguments: list[str] | None = None) -> int:
    """Make the tables; return 0 when every cell is within its bar."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["fuzz"]:
        from validation.fuzz.campaign import main as fuzz

        return fuzz(given[1:], lambda line: print(line, flush=True))
    parser = argparse.ArgumentParser(prog="python -m validation", description=__doc__, epilog="`fuzz` has options of its own: fuzz --help")
    tables = ("agreement", "deep", "specs", "chips", "memory", "memory_training", "pipecnn", "mnsim", "neurosim")
    parser.add_argument("table", nargs="?", choices=tables, default=tables[0], help="which table (default agreement)")
    parser.add_argument("--out", type=Path, default=Path("docs/tables"), help="folder of the tables (default docs/tables)")
    parser.add_argument("--networks", nargs="+", help="only these of the table's networks")
    parser.add_argument("--quick", action="store_true", help="the embedded networks at two noise levels, to 3 %% in minutes")
    parser.add_argument("--work", type=Path, default=Path(".memory_training"), help="of memory_training: folder of networks in training")
    chosen = parser.parse_args(arguments)
    if chosen.table == "memory":
        return _memory(chosen.out, chosen.networks, quick=chosen.quick)
    if chosen.table == "specs":
        return _specs(chosen.out, chosen.networks)
    if chosen.table == "memory_training":
        return _memory_training(chosen.out, chosen.networks, quick=chosen.quick, work=chosen.work)
    if chosen.table == "chips":
        return _chips(chosen.out, chosen.networks)
    if chosen.table in ("pipecnn", "mnsim", "neurosim"):
        return _published(chosen.table, chosen.out)
    name, studies = f"{chosen.table}.csv", DEEP if chosen.table == "deep" else AGREEMENT
    methods = ("sketched", "corrected") if chosen.table == "deep" else CLOSURES
    if chosen.quick:
        name, studies, methods = "agreement_quick.csv", QUICK, CLOSURES
    if chosen.networks:
        known = [study.network for study in studies]
        if unknown := [n for n in chosen.networks if n not in known]:
            parser.error(f"--networks {' '.join(unknown)}: this table has {', '.join(known)}")
        studies = tuple(s for s in studies if s.network in chosen.networks)
    options: dict[str, Any] = {"studies": studies, "methods": methods}
    try:
        rows = resumed_table(chosen.out / name, agreement_table, tell=lambda line: print(line, flush=True), **options)
    except DataMissingError as error:
        print(error, file=sys.stderr)
        return 2
    verdict = judged(rows)
    for what, cells in verdict.items():
        print(f"{what}: {cells}")
    return 1 if verdict["beyond_bar"] or verdict["wrongly_valid"] else 0


def _memory_training(out: Path, data: list[str] | None, *, quick: bool, work: Path) -> int:
    """Train, test and sum up; return 0 where the published factor is reached on every data set."""
    try:
        import torch  # noqa: F401
    except ImportError:
        print("PyTorch is not installed; it comes with the extra `train`: pip install 'accelsim[train]'", file=sys.stderr)
        return 2
    from validation import memory_training as study

    name, studies = ("memory_training_quick", study.QUICK) if quick else ("memory_training", study.STUDIES)
    chosen = tuple(s for s in studies if data is None or s.data in data)
    tell = partial(print, flush=True)
    try:
        rows = resumed_table(out / f"{name}_cells.csv", study.training_table, tell=tell, n_rows=1, studies=chosen, work=work)
    except DataMissingError as error:
        print(error, file=sys.stderr)
        return 2
    found = study.summary(rows)
    write_rows(out / f"{name}.csv", found)
    for row in found:
        print("  ".join(str(value) for value in row.values() if value != ""))
    verdict = study.judged(found)
    for what, of in verdict.items():
        print(f"{what}: {of}")
    return 0 if all(of["reached"] for of in verdict.values()) else 1


def _chips(out: Path, networks: list[str] | None) -> int:
    """Make the table of whole chips; it has no bar, but every prediction in it should call itself valid."""
    chosen = tuple(networks or CHIP_NETWORKS)
    rows = resumed_table(out / "chips.csv", chip_table, tell=lambda line: print(line, flush=True), n_rows=1, networks=chosen)
    print(f"not_valid: {[row['cell'] for row in rows if str(row['valid']) != 'True']}")
    return 0


def _published(table: str, out: Path) -> int:
    """Make a table of published numbers beside ours; it is data to read, not judged here."""
    module = import_module(f"validation.{table}")
    try:
        rows = [{name: _rounded(row[name]) for name in module.COLUMNS} for row in getattr(module, f"{table}_table")()]
    except DataMissingError as error:
        print(error, file=sys.stderr)
        return 2
    write_rows(out / f"{table}.csv", rows)
    for row in rows:
        print("  ".join(value for value in row.values() if value))
    return 0


def _rounded(value: float | str) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _memory(out: Path, networks: list[str] | None, *, quick: bool) -> int:
    from validation import memory

    options: dict[str, Any] = {"networks": tuple(networks or memory.NETWORKS)}
    if quick:
        options |= {"networks": tuple(networks or memory.NETWORKS[:1]), "rates": (1e-6, 1e-4), "n_images": 16}
    name = "memory_quick.csv" if quick else "memory.csv"
    try:
        rows = resumed_table(out / name, memory.memory_table, tell=lambda line: print(line, flush=True), n_rows=1, **options)
    except DataMissingError as error:
        print(error, file=sys.stderr)
        return 2
    verdict = memory.judged(rows)
    for what, cells in verdict.items():
        print(f"{what}: {cells}")
    return 1 if any(verdict.values()) else 0


def _specs(out: Path, networks: list[str] | None) -> int:
    try:
        rows = resumed_table(
            out / "specs.csv",
            spec_table,
            tell=lambda line: print(line, flush=True),
            n_rows=1,
            networks=tuple(networks or NETWORKS),
        )
    except DataMissingError as error:
        print(error, file=sys.stderr)
        return 2
    verdict = judged_specs(rows)
    for what, cells in verdict.items():
        print(f"{what}: {cells}")
    return 1 if verdict["beyond_bar"] or verdict["wrongly_valid"] else 0


if __name__ == "__main__":
    sys.exit(main())
