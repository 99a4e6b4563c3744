"""What all pictures share: colours that colour-blind readers can tell apart, and where axes come from."""

from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito, "Color Universal Design", 2008
BLUE, ORANGE, GREEN, VERMILION, SKY, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#7F7F7F"
MAX_NAME = 32
MAX_TITLE, MAX_NOTE = 78, 96
"""Characters that fit above a picture."""


class Source(Protocol):
    """Where an answer comes from, as far as pictures tell it."""

    @property
    def network(self) -> str: ...


def axes_for(ax: "Axes | None", *, width: float = 7.0, height: float = 4.2) -> "Axes":
    """Return the axes given, or those of a new pyplot figure, which a notebook shows and a script may show or save."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height), layout="constrained")[1]


def title(ax: "Axes", text: str, *, note: str = "") -> None:
    """Write what the picture says, flush left, with a smaller line below it, whose `gid` is `note`."""
    size = 11 if len(text) <= 50 else 9
    ax.set_title(plain(_cut(text, MAX_TITLE)), loc="left", fontsize=size, fontweight="bold", pad=21 if note else 6)
    if note:
        ax.annotate(
            plain(_cut(note, MAX_NOTE)),
            (0.0, 1.0),
            xytext=(0, 6),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=9,
            color="0.3",
            va="bottom",
            gid="note",
        )


def light_frame(ax: "Axes", *, grid: str = "both") -> None:
    """Leave out the upper and right frame and draw a faint grid behind the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, which="major", color="0.9", linewidth=0.8)  # type: ignore[arg-type]
    ax.set_axisbelow(True)


def plain(text: str) -> str:
    """Return text in which names from files cannot be read as formulas, and characters that cannot be seen are question marks."""
    return "".join(c if c.isprintable() else "?" for c in text).replace("$", r"\$")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def short(name: str) -> str:
    """Return a name that fits beside a bar: the beginning and the end of a module path say most."""
    return plain(name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 15]}...{name[-12:]}")


def scale_for(*groups: NDArray | tuple[float, ...]) -> Literal["log", "linear"]:
    """Return the scale of an axis: logarithmic where values differ more than 20 times."""
    values = np.concatenate([np.asarray(group, dtype=float) for group in groups])
    values = values[positive(values)]
    return "log" if len(values) and values.max() > 20.0 * values.min() else "linear"


def positive(values: NDArray) -> NDArray[np.bool_]:
    """Return where values can stand on a logarithmic axis."""
    return np.isfinite(values) & (values > 0.0)


def legend_below(ax: "Axes", *, points: float = 32.0, columns: int = 3) -> None:
    """Put the legend so many points below the axes, however high they become."""
    from matplotlib.transforms import ScaledTranslation

    below = ax.transAxes + ScaledTranslation(0.0, -points / 72.0, ax.figure.dpi_scale_trans)
    ax.legend(frameon=False, fontsize=8, ncols=columns, loc="upper center", bbox_to_anchor=(0.5, 0.0), bbox_transform=below)
