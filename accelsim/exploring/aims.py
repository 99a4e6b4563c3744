"""What a search is for: objectives, and constraints such as `accuracy >= 0.9`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from devices.base.errors import SpecError
from devices.base.quantity import parse_quantity, unit_of
from devices.base.toml_codec import nearest_text, shown

_CONSTRAINT = re.compile(r"\s*(\w+)\s*(<=|>=)\s*(.+?)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """A number of the answer: where it stands, whether less is better, and whether it takes a simulation in time."""

    name: str
    paths: tuple[str, ...]
    direction: Literal["minimize", "maximize"] = "minimize"
    timed: bool = False

    def of(self, answer: Mapping[str, Any]) -> float | None:
        """Return the number; None where the answer does not have it."""
        for path in self.paths:
            found: Any = answer
            for name in path.split("."):
                found = found.get(name) if isinstance(found, Mapping) else None
            if isinstance(found, int | float):
                return float(found)
        return None


AIMS = {
    aim.name: aim
    for aim in (
        Aim(name="error", paths=("mse_rel",)),
        Aim(name="accuracy", paths=("accuracy_predicted",), direction="maximize"),
        Aim(name="power", paths=("read_power_w", "predicted.read_power_w")),
        Aim(name="energy", paths=("energy_j",), timed=True),
        Aim(name="latency", paths=("latency_s",), timed=True),
        Aim(name="throughput", paths=("throughput_per_s",), direction="maximize", timed=True),
        Aim(name="area", paths=("area_m2",), timed=True),
    )
}
PRICED = ("power", "energy")
"""Aims that conductances are a price of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A constraint on an aim."""

    aim: Aim
    at_most: bool
    bound: float
    text: str

    def violation(self, value: float) -> float:
        """Return by how much of the bound a value misses it; at most 0 where it holds."""
        over = value - self.bound if self.at_most else self.bound - value
        return over / abs(self.bound) if self.bound else over


def aims_of(objectives: Sequence[str]) -> tuple[Aim, ...]:
    """Return the objectives; SpecError for names that are none, or are given twice."""
    if isinstance(objectives, str) or not objectives:
        raise SpecError(f"objectives: {shown(objectives)}: need a list of {', '.join(AIMS)}")
    for name in objectives:
        _known(name, "objectives")
    if len(set(objectives)) < len(objectives):
        raise SpecError(f"objectives: {', '.join(objectives)}: the same twice")
    return tuple(AIMS[name] for name in objectives)


def limits_of(constraints: Sequence[str]) -> tuple[Limit, ...]:
    """Return the constraints of texts such as `area <= 20 mm2`."""
    if isinstance(constraints, str):
        raise SpecError(f"constraints: {shown(constraints)}: need a list of texts")
    return tuple(_limit(text) for text in constraints)


def _limit(text: str) -> Limit:
    found = _CONSTRAINT.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise SpecError(f'constraints: {shown(text)}: need NAME <= VALUE or NAME >= VALUE, e.g. "accuracy >= 0.9"')
    name, sign, value = found.groups()
    _known(name, "constraints")
    unit = "number" if name == "throughput" else unit_of(AIMS[name].paths[0])
    try:
        bound = parse_quantity(_plain(value), "relative" if unit == "number" and name != "throughput" else unit)
    except SpecError as error:
        raise SpecError(f"constraints: {text}: {error}") from None
    return Limit(aim=AIMS[name], at_most=sign == "<=", bound=bound, text=" ".join(text.split()))


def _plain(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def _known(name: object, where: str) -> None:
    if name not in AIMS:
        raise SpecError(f"{where}: {shown(name)}: need {' | '.join(AIMS)}{nearest_text(str(name), tuple(AIMS))}")
