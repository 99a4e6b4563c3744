"""How many copies of its arrays each layer has: those of the spec, balanced over pixels, or as many as the tiles hold."""

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias

from accelsim.chip import Chip
from accelsim.timing.services import arrays_of_copy, stage_ps
from accelsim.timing.steps import Step
from accelsim.timing.tiles import arrays_there_are
from devices.base.errors import InfeasibleError, SpecError

Copies: TypeAlias = Literal["given", "balanced", "budget"] | Mapping[str, int]
BALANCED_PIXELS, BALANCED_COPIES = 196, 64
"""Balanced: a copy for each 196 pixels of a layer's output (14 x 14), at most 64."""


def copies_of(chip: Chip, steps: tuple[Step, ...], copies: Copies) -> dict[str, int]:
    """Return the copies of each step; SpecError for layers that there are not, InfeasibleError beyond a budget."""
    layers = [step for step in steps if step.on_arrays is not None]
    given = {step.name: 1 if step.on_arrays is None else step.on_arrays.site.mapping.replicas for step in steps}
    if isinstance(copies, Mapping):
        unknown = copies.keys() - {step.name for step in layers}
        if unknown or any(n < 1 for n in copies.values()):
            has = ", ".join(step.name for step in layers[:12])
            raise SpecError(f"copies: {dict(copies)}: need layers of the network that are on arrays, each with at least 1; it has {has}")
        return given | dict(copies)
    if copies == "given":
        return given
    if copies == "balanced":
        wanted = {s.name: max(1, min(BALANCED_COPIES, s.size[0] * s.size[1] // BALANCED_PIXELS)) for s in steps}
        return {s.name: 1 if s.on_engine is not None else wanted[s.name] for s in steps}
    return given | (_within_budget(chip, layers) if layers else {})


def _within_budget(chip: Chip, layers: list[Step]) -> dict[str, int]:
    """Return the copies that make the interval least on the tiles there are: the slowest layer gets copies that help, while any fit."""
    total = arrays_there_are(chip)
    if total is None:
        raise SpecError('chip.n_tiles, n_chips: absent, but copies = "budget" needs to know how many there are; set both')
    one = {step.name: arrays_of_copy(step.on_arrays, chip) for step in layers if step.on_arrays is not None}
    chosen = dict.fromkeys(one, 1)
    used = sum(one.values())
    if used > total:
        raise InfeasibleError(f"one copy of each layer takes {used} arrays, of {total} there are; raise chip.n_tiles, or leave copies out")

    def interval(step: Step, n: int) -> float:
        assert step.on_arrays is not None
        return step.size[0] * math.ceil(step.size[1] / n) * step.on_arrays.n_input_slices * stage_ps(step.on_arrays, chip)

    while True:
        slowest = max(layers, key=lambda step: interval(step, chosen[step.name]))
        n, now = chosen[slowest.name], interval(slowest, chosen[slowest.name])
        more = next((k for k in range(n + 1, slowest.size[1] + 1) if interval(slowest, k) < now), None)
        if more is None or used + (more - n) * one[slowest.name] > total:
            return chosen
        used += (more - n) * one[slowest.name]
        chosen[slowest.name] = more
