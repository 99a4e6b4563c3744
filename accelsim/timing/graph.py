"""The one thing that every engine reads: stages that work through tokens, buffers between them, and what they share.

A stage serves its tokens in order, one at a time:

    start   when the stage is free, its inputs hold what the token needs, and (for the first stages) the image has arrived
    finish  after the token's service; then the inputs that no later token needs are released
    leave   when the buffer behind the stage has room; only then is the stage free again (blocking after service)
    there   after a further `fill`, in which the stage already serves the next token: the depth of a pipeline

The buffer behind a stage has one room a token, taken when the token leaves the stage and given back when every reader has released it.
All times are whole picoseconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from accelsim.timing.grid import Ints
from devices.base.errors import SpecError

PS = 1e-12
LONGEST_S = 4e6
"""Picoseconds are counted in 63 bits, which end at 9e6 s."""


def picoseconds(seconds: float) -> int:
    """Return a time in whole picoseconds, the nearest; SpecError for times that cannot be counted so."""
    if not seconds <= LONGEST_S:
        raise SpecError(
            f"a service takes {seconds:g} s, and times up to {LONGEST_S:g} s can be told; shorten drive.t_read_s, or the times of [chip]"
        )
    return round(seconds / PS)


def times_each(counts: Ints, each_ps: int) -> Ints:
    """Return how long so many times `each_ps` are; SpecError for times that cannot be counted."""
    picoseconds(float(counts.max(initial=0)) * each_ps * PS)
    return counts * each_ps


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Edge:
    """One input of a stage.

    Parameters
    ----------
    source
        The stage that it reads.
    need
        Tokens of the source that must be there before a token starts, `(n_tokens,)`, not falling.
    release
        Tokens of the source that are given back after it, `(n_tokens,)`, not falling; the last is all of them.
    lag
        Images between: 1 where an image waits for the image before.
    """

    source: int
    need: Ints
    release: Ints
    lag: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """One worker and its tokens of one image.

    Parameters
    ----------
    name, layer
        Its own name, and the network's node whose work it does.
    service_ps
        How long each token keeps it busy, `(n_tokens,)`.
    inputs
        What it reads; none for a stage that reads the image.
    fill_ps
        From leaving the stage until the result is there.
    room
        Tokens that the buffer behind it holds; None for any number.
    holds, hold_ps
        The shared things that each token asks for, one after the other, and then holds together from its start for `(n_tokens,)`.
    """

    name: str
    layer: str
    service_ps: Ints
    inputs: tuple[Edge, ...]
    fill_ps: int = 0
    room: int | None = None
    holds: tuple[str, ...] = ()
    hold_ps: Ints | None = None

    @property
    def n_tokens(self) -> int:
        """Tokens of one image."""
        return len(self.service_ps)

    @property
    def work_ps(self) -> int:
        """Time that one image keeps the stage busy."""
        return int(self.service_ps.sum())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenGraph:
    """Stages in an order in which sources come first (but for edges with a lag), and how many there are of what they share."""

    stages: tuple[Stage, ...]
    resources: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for i, stage in enumerate(self.stages):
            _check(i, stage, self)

    @property
    def n_tokens(self) -> int:
        """Tokens of one image, of all stages."""
        return sum(stage.n_tokens for stage in self.stages)

    def check_span(self, n_images: int) -> None:
        """Raise SpecError where a run may take longer than can be counted."""
        span = n_images * sum(float(stage.service_ps.sum(dtype=float)) + stage.fill_ps for stage in self.stages) * PS
        if span > LONGEST_S:
            raise SpecError(
                f"{n_images} images may take {span:g} s, and times up to {LONGEST_S:g} s can be told; give fewer images, or shorten the "
                "times of drive and chip"
            )

    def readers(self) -> list[list[tuple[int, Edge]]]:
        """Return, for each stage, who reads it, through which edge."""
        found: list[list[tuple[int, Edge]]] = [[] for _ in self.stages]
        for i, stage in enumerate(self.stages):
            for edge in stage.inputs:
                found[edge.source].append((i, edge))
        return found

    def shared_work_ps(self) -> dict[str, float]:
        """Return how long one image keeps each shared thing busy, over how many there are of it."""
        work = dict.fromkeys(self.resources, 0)
        for stage in self.stages:
            for name in stage.holds:
                work[name] += 0 if stage.hold_ps is None else int(stage.hold_ps.sum())
        return {name: total / self.resources[name] for name, total in work.items()}


def _check(i: int, stage: Stage, graph: TokenGraph) -> None:
    if stage.n_tokens == 0 or np.any(stage.service_ps < 0) or stage.fill_ps < 0:
        raise SpecError(f"stage {stage.name!r}: need at least one token, and times of at least 0")
    if stage.room is not None and stage.room < 1:
        raise SpecError(f"stage {stage.name!r}: its buffer has room for {stage.room} tokens; need at least 1")
    for name in stage.holds:
        if graph.resources.get(name, 0) < 1:
            raise SpecError(f"stage {stage.name!r} shares {name!r}, of which there is none")
    if stage.hold_ps is not None and (len(stage.hold_ps) != stage.n_tokens or np.any(stage.hold_ps > stage.service_ps)):
        raise SpecError(f"stage {stage.name!r} holds what it shares longer than it serves a token")
    for edge in stage.inputs:
        source = graph.stages[edge.source]
        fits = len(edge.need) == len(edge.release) == stage.n_tokens
        if not fits or np.any(np.diff(edge.need) < 0) or np.any(np.diff(edge.release) < 0) or edge.release[-1] != source.n_tokens:
            raise SpecError(f"stage {stage.name!r}: what it needs of {source.name!r} must have an entry a token and not fall")
        if edge.lag and source.room is not None:
            raise SpecError(f"stage {stage.name!r} reads {source.name!r} an image late: the buffer between must have room for any number")
        if edge.source >= i and edge.lag == 0:
            raise SpecError(f"stage {stage.name!r} reads {source.name!r}, which comes after it")
