"""What the documentation prints to be typed is right: every line parses, and those of the how-to pages run."""

import os
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from doc_pages import ROOT, Block, blocks_of, commands_of, readme_commands, type_page
from matplotlib import pyplot

from accelsim.cli import parser

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.rst"))
HOW_TO = sorted((DOCS / "howto").glob("*.rst"))
QUICK = ("chip",)


def parses(words: tuple[str, ...]) -> bool:
    try:
        parser().parse_args(list(words))
    except SystemExit as ending:
        return ending.code == 0
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS).with_suffix("")))
def test_every_command_of_a_page_parses(page: Path) -> None:
    wrong = [command.words for block in blocks_of(page) for command in commands_of(block) if not parses(command.words)]
    assert wrong == []


def test_every_command_of_the_readme_parses() -> None:
    found = list(readme_commands((ROOT / "README.md").read_text(encoding="utf-8")))
    assert len(found) > 15
    assert [words for words in found if not parses(words)] == []


def test_every_verb_is_typed_somewhere_in_the_documentation() -> None:
    pages = {command.words[0] for page in PAGES for block in blocks_of(page) for command in commands_of(block)}
    typed = pages | {words[0] for words in readme_commands((ROOT / "README.md").read_text(encoding="utf-8"))}
    verbs = parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    assert set(verbs or ()) - typed == set()


def test_a_command_that_is_wrong_is_found() -> None:
    block = Block(language="console", options={}, text="$ accelsim predict net.onnx --sed 7    # 'quoted'\n$ accelsim memory\n")
    assert [parses(command.words) for command in commands_of(block)] == [False, True]


def test_an_exit_code_that_is_promised_is_read() -> None:
    block = Block(language="console", options={}, text="$ accelsim collect a    # exit code 1, for want\n$ accelsim collect a\n")
    assert [command.code for command in commands_of(block)] == [1, 0]


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Be in a folder made as the how-to page says, with what its Python knows then."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    names: dict[str, Any] = {"__name__": "page"}
    with matplotlib.rc_context():
        matplotlib.use("Agg")
        assert list(type_page(DOCS / "howto.rst", known=names)) == []
        assert sorted(os.listdir()) == ["my_images.npz", "my_net.onnx"]
        yield {"__name__": "page"}
        pyplot.close("all")


def run_page(name: str, known: dict[str, Any]) -> None:
    done = list(type_page(DOCS / "howto" / f"{name}.rst", known=known))
    assert done
    assert [(command, code, said) for command, code, said in done if code != 0] == []


@pytest.mark.parametrize("name", QUICK)
def test_a_quick_how_to_page_is_true_to_the_letter(name: str, known: dict[str, Any]) -> None:
    run_page(name, known)


@pytest.mark.slow
@pytest.mark.parametrize("name", [page.stem for page in HOW_TO if page.stem not in QUICK])
def test_a_how_to_page_is_true_to_the_letter(name: str, known: dict[str, Any]) -> None:
    if name == "explore":
        pytest.importorskip("optuna", reason="needs the extra `explore`")
    run_page(name, known)
