"""What is known of a trained network besides its graph: the accuracy it reaches, and how its inputs are normalized."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from devices.base.errors import SpecError
from devices.base.toml_codec import parse_toml, read_text
from workloads.operators.base import Array

_KEYS = ("accuracy", "mean", "std")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """A network's own claims.

    Parameters
    ----------
    accuracy
        Share of images it tells right without any hardware; None where it is not said.
    mean, std
        Of x = (p / 255 - mean) / std for pixels p of 0 to 255, one value or one a channel; empty where it is not said.
    """

    accuracy: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.accuracy is not None and not 0.0 < self.accuracy <= 1.0:
            raise SpecError(f"accuracy: {self.accuracy:g}: need a share above 0 and at most 1, e.g. 0.92")
        if len(self.mean) != len(self.std):
            raise SpecError(f"mean, std: need as many of each, got {len(self.mean)} and {len(self.std)}")
        if not all(math.isfinite(m) for m in self.mean) or not all(0.0 < s < math.inf for s in self.std):
            raise SpecError(f"mean, std: {list(self.mean)}, {list(self.std)}: need finite means and standard deviations above 0")

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Return the card in a TOML file with any of `accuracy`, `mean` and `std`; SpecError names what is wrong in it."""
        table = parse_toml(read_text(Path(path)), origin=str(path))
        if unknown := sorted(set(table) - set(_KEYS)):
            raise SpecError(f"{path}: {unknown[0]}: unknown; a card has {', '.join(_KEYS)}")
        try:
            accuracy = None if "accuracy" not in table else _number(table["accuracy"], "accuracy")
            return cls(accuracy=accuracy, mean=_numbers(table, "mean"), std=_numbers(table, "std"))
        except SpecError as error:
            raise SpecError(f"{path}: {error}") from None

    def normalized(self, pixels: Array) -> Array:
        """Return `(N, C, ...)` pixels of 0 to 1 as the network takes them; as they are where the card says nothing."""
        if not self.mean:
            return pixels
        mean, std = (np.asarray(v, np.float32).reshape(1, -1, *(1,) * (pixels.ndim - 2)) for v in (self.mean, self.std))
        return ((pixels - mean) / std).astype(np.float32)

    @property
    def limits(self) -> tuple[float, float] | None:
        """The least and largest input that pixels can give; None where the card says nothing of them."""
        if not self.mean:
            return None
        return min(-m / s for m, s in zip(self.mean, self.std)), max((1.0 - m) / s for m, s in zip(self.mean, self.std))

    def fits(self, n_channels: int) -> bool:
        """Return whether its means are for so many channels."""
        return len(self.mean) in (0, 1, n_channels)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(f"{name}: {value!r}: need a number")
    return float(value)


def _numbers(table: dict[str, Any], name: str) -> tuple[float, ...]:
    value = table.get(name, [])
    return tuple(_number(one, name) for one in (value if isinstance(value, list) else [value]))
