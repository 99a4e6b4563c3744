"""`python -m validation`: remake every table that README and documentation claim, say what is beyond its bar, and what moved."""

import argparse
import shutil
import sys
from pathlib import Path

from validation.gallery import PICTURES, draw, page
from validation.moved import moved
from validation.networks import DataMissingError
from validation.registry import TABLES, Order, networks_of, spent_s
from validation.tables import read_rows

DOCS = Path("docs")
KEPT, NEW = DOCS / "tables", Path("build/validation")
GALLERY = "gallery"
FINE, BEYOND, MISSING = 0, 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Make the tables; return 0 when every cell is within its bar and none moved, 1 otherwise, 2 where data is missing."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["fuzz"]:
        from validation.fuzz.campaign import main as fuzz

        return fuzz(given[1:], lambda line: print(line, flush=True))
    parser = _parser()
    chosen = parser.parse_args(given)
    if chosen.list:
        return _listed(chosen.against)
    if unknown := [name for name in chosen.tables if name not in (*TABLES, GALLERY)]:
        parser.error(f"{unknown[0]}: no such table; there are {', '.join([*TABLES, GALLERY])}")
    names = chosen.tables or [name for name, table in TABLES.items() if chosen.speed or not table.is_speed]
    for network in chosen.networks:
        if not all(network in networks_of(name) for name in names if name != GALLERY):
            parser.error(f"--networks {network}: not of {', '.join(names)}, which have {', '.join(networks_of(names[0]))}")
    order = Order(out=chosen.out, networks=tuple(chosen.networks), quick=chosen.quick, work=chosen.work)
    return max([_gallery() if name == GALLERY else _made(name, order, chosen) for name in names], default=FINE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m validation", description=__doc__, epilog="`fuzz` has options of its own: fuzz --help")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="which; by default all but those of speed (--list names them)")
    parser.add_argument("--list", action="store_true", help="list the tables, what they say, and how long they take")
    parser.add_argument("--out", type=Path, default=NEW, help=f"folder of the new tables; what is there already is kept ({NEW})")
    parser.add_argument("--against", type=Path, default=KEPT, metavar="DIR", help=f"folder of the tables that are kept ({KEPT})")
    parser.add_argument("--keep", action="store_true", help="replace the kept tables by the new ones")
    parser.add_argument("--networks", nargs="+", default=[], metavar="NET", help="only these of the tables' networks")
    parser.add_argument("--quick", action="store_true", help="embedded networks at two noise levels, in minutes; not compared")
    parser.add_argument("--work", type=Path, default=Path(".memory_training"), help="of memory_training: folder of networks in training")
    parser.add_argument("--speed", action="store_true", help="with the tables of times, which are other on another machine")
    return parser


def _listed(against: Path) -> int:
    """List the tables, with the time that those that are kept took."""
    for name, table in TABLES.items():
        print(f"{name:<10} {_took(against / f'{name}.csv'):>12}  {table.says}{' (speed)' if table.is_speed else ''}")
    print(f"{GALLERY:<10} {'':>12}  the pictures of the documentation: {', '.join(PICTURES)}")
    return FINE


def _took(kept: Path) -> str:
    """Return how long the table that is kept took, as it says itself."""
    spent = spent_s(read_rows(kept)) if kept.exists() else None
    return "" if spent is None else f"{spent / 60:.0f} CPU min"


def _made(name: str, order: Order, chosen: argparse.Namespace) -> int:
    """Make one table, judge it, and compare it."""
    table = TABLES[name]
    print(f"== {name}: {table.says}", flush=True)
    try:
        rows = table.make(order, lambda line: print(line, flush=True))
    except DataMissingError as error:
        print(error, file=sys.stderr)
        return MISSING
    verdict = {} if table.judge is None else dict(table.judge(rows))
    for what, cells in verdict.items():
        print(f"{what}: {cells}")
    beyond = bool(verdict.get("beyond_bar") or verdict.get("wrongly_valid"))
    has_moved = not order.quick and _compared(name, order, chosen)
    if chosen.keep and not order.quick:
        chosen.against.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(order.out / f"{name}.csv", chosen.against / f"{name}.csv")
    return BEYOND if beyond or has_moved else FINE


def _compared(name: str, order: Order, chosen: argparse.Namespace) -> bool:
    """Say what moved; return whether anything did. Tables of speed move with the machine, and are told only."""
    kept, made = (folder / f"{name}.csv" for folder in (chosen.against, order.out))
    if not kept.exists():
        print(f"nothing is kept in {kept} to compare with; --keep keeps this")
        return False
    before, after = read_rows(kept), read_rows(made)
    if order.networks:
        before, after = ([row for row in rows if row.get("network") in (None, *order.networks)] for rows in (before, after))
    found = moved(before, after, TABLES[name].rule)
    print(f"moved against {kept}: {len(found)} of {len(before)} rows" if found else f"nothing moved against {kept} ({len(before)} rows)")
    for line in found:
        print(f"  {line}")
    return bool(found) and not TABLES[name].is_speed


def _gallery() -> int:
    """Draw the pictures of the documentation, and write their page, where they are kept."""
    for path in draw(DOCS / "pictures"):
        print(path, flush=True)
    (DOCS / "gallery.rst").write_text(page(), encoding="utf-8")
    return FINE


if __name__ == "__main__":
    sys.exit(main())
