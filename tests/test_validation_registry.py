"""`python -m validation`: what moved is told, tables are gone on with, and the gallery shows what its commands draw."""

import shlex
from pathlib import Path

import pytest

from validation.__main__ import main
from validation.gallery import PICTURES, page
from validation.moved import Rule, moved
from validation.registry import TABLES, spent_s
from validation.tables import read_rows, write_rows

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
RATIO = Rule(key=("cell",), value="ratio", low="ci_low", high="ci_high", words=("valid",))


def row(cell: str = "net", ratio: float = 1.0, half: float = 0.01, valid: bool = True) -> dict[str, str]:
    return {"cell": cell, "ratio": f"{ratio}", "ci_low": f"{ratio - half}", "ci_high": f"{ratio + half}", "valid": f"{valid}", "cpu_s": "1"}


def test_a_cell_within_its_interval_has_not_moved() -> None:
    assert moved([row(), row("b")], [row(ratio=1.015), row("b") | {"cpu_s": "9"}], RATIO) == ()


def test_a_cell_beyond_its_interval_has() -> None:
    found = moved([row()], [row(ratio=1.03)], RATIO)
    assert found == ("net: ratio 1.0 (0.99 to 1.01) is 1.03 (1.02 to 1.04)",)


def test_words_and_rows_that_came_or_went_are_told() -> None:
    found = moved([row(), row("gone")], [row(valid=False), row("new")], RATIO)
    assert found == ("new: new", "gone: gone", "net: valid True is False")


def test_numbers_without_intervals_have_a_tolerance() -> None:
    rule = Rule(key=("what",), numbers=("ours",), tolerance_rel=1e-3)
    assert moved([{"what": "a", "ours": "1000"}], [{"what": "a", "ours": "1000.9"}], rule) == ()
    assert moved([{"what": "a", "ours": "1000"}], [{"what": "a", "ours": "1002"}], rule) == ("a: ours 1000 is 1002",)
    assert moved([{"what": "a", "ours": ""}], [{"what": "a", "ours": "1"}], rule) == ("a: ours  is 1",)


def test_an_interval_may_come_from_a_standard_error() -> None:
    rule = Rule(key=("cell",), value="ratio", se_rel="se_rel")
    kept, made = ({"cell": "a", "ratio": r, "se_rel": "0.01"} for r in ("1.0", "1.05"))
    assert moved([kept], [made], rule) == ("a: ratio 1.0 (0.9804 to 1.02) is 1.05 (1.029 to 1.071)",)


def test_rows_of_one_key_are_told_apart() -> None:
    rule = Rule(key=("cell",), numbers=("ours",))
    rows = [{"cell": "a", "ours": "1"}, {"cell": "a", "ours": "2"}]
    assert moved(rows, rows, rule) == ()
    assert moved(rows, [rows[0], {"cell": "a", "ours": "3"}], rule) == ("a #2: ours 2 is 3",)


@pytest.mark.parametrize("name", [name for name in TABLES if (DOCS / "tables" / f"{name}.csv").exists()])
def test_each_kept_table_has_the_columns_of_its_rule_and_is_equal_to_itself(name: str) -> None:
    rows = read_rows(DOCS / "tables" / f"{name}.csv")
    rule = TABLES[name].rule
    columns = {*rule.key, rule.value, rule.low, rule.high, rule.se_rel, *rule.words, *rule.numbers} - {"", "*"}
    assert columns <= set(rows[0])
    assert moved(rows, rows, rule) == ()
    verdict = {} if TABLES[name].judge is None else TABLES[name].judge(rows)  # type: ignore[misc]
    assert not verdict.get("wrongly_valid")


def test_a_row_without_a_value_moves_only_where_it_gets_one() -> None:
    rows = read_rows(DOCS / "tables" / "joint.csv")
    assert any(not row["mse"] for row in rows), "no design of scales alone meets the least budget"
    made = [row | {"mse": "1.0", "ci_low": "0.9", "ci_high": "1.1"} if row["cell"] == rows[0]["cell"] else row for row in rows]
    assert moved(rows, made, TABLES["joint"].rule) == ("resnet8_cifar10 75% scales: mse none is 1.0",)


def test_every_table_of_the_documentation_can_be_made() -> None:
    kept = {path.stem for path in (DOCS / "tables").glob("*.csv")}
    beside = {"wires_iterations", "memory_training_cells", "threads"}  # made with others; the last is for an idle machine only
    assert kept - beside <= set(TABLES)


def test_what_moved_is_told_and_kept_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = read_rows(DOCS / "tables" / "pipecnn.csv")
    rows[0]["predicted_ms"] = "1"
    write_rows(tmp_path / "kept" / "pipecnn.csv", rows)
    command = ["pipecnn", "--out", str(tmp_path / "new"), "--against", str(tmp_path / "kept")]
    if (code := main(command)) == 2:
        pytest.skip(capsys.readouterr().err)
    assert code == 1
    assert "predicted_ms 1 is 1.1332" in capsys.readouterr().out
    assert main([*command, "--keep"]) == 1
    assert main(command) == 0
    assert "nothing moved" in capsys.readouterr().out


def test_the_list_says_what_each_table_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--against", str(DOCS / "tables")]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{listed}" for name in TABLES)
    assert "CPU min" in listed


def test_the_time_of_a_table_is_that_of_its_runs() -> None:
    rows = [{"cell": "a", "cpu_s": "1", "mc_cpu_s": "10"}, {"cell": "a", "cpu_s": "2", "mc_cpu_s": "10"}]
    assert spent_s(rows) == 13.0
    assert spent_s([{"what": "x"}]) is None


def test_an_unknown_table_is_refused_with_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["agreemnt"])
    assert "agreemnt: no such table; there are agreement, deep" in capsys.readouterr().err


# the gallery


def test_the_gallery_is_what_its_list_says() -> None:
    assert (DOCS / "gallery.rst").read_text(encoding="utf-8") == page()


def test_every_picture_is_kept_and_shown() -> None:
    shown = "".join(path.read_text(encoding="utf-8") for path in DOCS.rglob("*.rst"))
    kept = {path.stem for path in (DOCS / "pictures").glob("*.png")}
    assert set(PICTURES) <= kept
    assert [name for name in kept if f"pictures/{name}.png" not in shown] == []


def test_every_command_of_the_gallery_is_one_of_ours() -> None:
    from accelsim.cli import parser

    for picture in PICTURES.values():
        for command in picture.commands:
            words = shlex.split(command)
            assert words[0] == "accelsim"
            assert parser().parse_args(words[1:])
