"""The reference page and the package list the same names."""

import re
from pathlib import Path

import accelsim

PAGE = Path(__file__).parents[1] / "docs" / "reference.rst"
DIRECTIVE = re.compile(r"^\.\. auto(?:function|class|exception|data):: (\S+)$", re.MULTILINE)


def names_on_the_page() -> list[str]:
    return DIRECTIVE.findall(PAGE.read_text(encoding="utf-8"))


def test_the_reference_page_has_every_public_name_and_no_other() -> None:
    assert sorted(names_on_the_page()) == sorted(accelsim.__all__)


def test_no_name_is_documented_twice() -> None:
    names = names_on_the_page()
    assert len(names) == len(set(names))


def test_every_public_name_says_what_it_is() -> None:
    undocumented = [name for name in accelsim.__all__ if name != "__version__" and not getattr(accelsim, name).__doc__]
    assert undocumented == []
