"""A report, told: the question, the answer in sentences, pictures and tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Draw = Callable[["Axes"], object]
Table = tuple[str, Sequence[dict[str, Any]]]
"""Caption and records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One report, told: the question, the answer in sentences, whether it is a bad one, pictures with captions, and tables."""

    question: str
    answer: tuple[str, ...]
    alarm: bool
    pictures: tuple[tuple[str, Draw], ...]
    tables: tuple[Table, ...]
