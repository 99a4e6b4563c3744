"""How large the buffers between stages must be, so that the stages never wait for each other in a circle.

A token of reader c needs, through every path that leads to it, the tokens of a source P up to N_P(c, t). While c waits for it, P's
buffer still holds what c has not given back: it needs room for

    max over t of  N_P(c, t) - release_c(t - 1)                                                                          (1)

tokens, for every reader. Skip connections are what makes this more than a window. (1) is where sizing starts; the recurrence certifies
it, and a buffer in a circle of waits is given a row more until there is none. Where images then follow each other more slowly than the
slowest stage could take them, the buffers that the critical path waits for grow until they do not.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from accelsim.timing.critical import critical_path
from accelsim.timing.graph import TokenGraph
from accelsim.timing.grid import Ints
from accelsim.timing.recurrence import recurrence, waiting_circle
from devices.base.errors import DeadlockError

MAX_TRIES = 400
N_IMAGES, CLOSE = 4, 1.002
"""Images that are watched, and how near their interval must be to the slowest stage's work for buffers to be large enough."""
MAX_WATCHED_TOKENS = 40_000_000
"""Tokens of all runs in which buffers grow: where maps are so large, the first sizes stay."""


def with_rooms(
    graph: TokenGraph, rooms: Literal["sized", "unbounded"] | int, *, widths: Mapping[str, int], widen: bool = True
) -> tuple[TokenGraph, list[str]]:
    """Return the graph with room behind each stage that is read, and what there is to say.

    `widths` are the tokens of a row of each stage. A number of rows is taken as it is where it holds the readers' own windows; `sized`
    adds a row to what is needed, so that a stage can work on the next row while the last is read, and, with `widen`, more where images
    would follow more slowly than they could.
    """
    if rooms == "unbounded":
        return graph, []
    late = {edge.source for stage in graph.stages for edge in stage.inputs if edge.lag}
    bounded = [i for i, readers in enumerate(graph.readers()) if readers and i not in late]
    row = [widths.get(stage.name, 1) for stage in graph.stages]
    if isinstance(rooms, int):
        return _bounded(graph, {i: max(rooms * row[i], _window(graph, i)) for i in bounded}), []
    least = least_rooms(graph)
    sizes = {i: least[i] + row[i] for i in bounded}
    for _ in range(MAX_TRIES):
        sized = _bounded(graph, sizes)
        circle = waiting_circle(sized, 2)
        if not circle:
            return (_widened(graph, sizes, row) if widen else sized), []
        grown = [i for i in circle if i in sizes]
        for i in grown:
            sizes[i] += row[i]
    raise DeadlockError(f"no sizes of the buffers were found with which the stages do not wait for each other, in {MAX_TRIES} tries")


def _widened(graph: TokenGraph, sizes: dict[int, int], row: list[int]) -> TokenGraph:
    """Return the graph with the buffers that the critical path waits for made larger, until images follow as fast as they can."""
    least = max([*(stage.work_ps for stage in graph.stages), *graph.shared_work_ps().values()])
    sized = _bounded(graph, sizes)
    for _ in range(MAX_WATCHED_TOKENS // (N_IMAGES * graph.n_tokens)):
        times = recurrence(sized, np.zeros(N_IMAGES, np.int64))
        done = np.sort(times.done_ps)
        full = [i for i in critical_path(times).full if i in sizes]
        if done[-1] - done[-2] <= CLOSE * least or not full:
            break
        for i in full:
            sizes[i] += max(row[i], sizes[i] // 4)
        sized = _bounded(graph, sizes)
    return sized


def _bounded(graph: TokenGraph, sizes: Mapping[int, int]) -> TokenGraph:
    stages = tuple(replace(stage, room=sizes.get(i, stage.room)) for i, stage in enumerate(graph.stages))
    return TokenGraph(stages=stages, resources=graph.resources)


def least_rooms(graph: TokenGraph) -> list[int]:
    """Return (1) for every stage, at least 1."""
    readers = graph.readers()
    lags = ([_lag(graph, source, c, edge.release) for c, edge in of_source if not edge.lag] for source, of_source in enumerate(readers))
    return [max([1, *of_source]) for of_source in lags]


def _window(graph: TokenGraph, source: int) -> int:
    """Return the tokens that the readers of a stage look at together, each by itself."""
    of_source = [edge for _, edge in graph.readers()[source] if not edge.lag]
    return max(1, *(int((edge.need - np.concatenate([np.zeros(1, np.int64), edge.release[:-1]])).max()) for edge in of_source))


def _lag(graph: TokenGraph, source: int, reader: int, release: Ints) -> int:
    reached = _reached(graph, source, reader)
    held = np.concatenate([np.zeros(1, np.int64), release[:-1]])
    return int((reached - held).max())


def _reached(graph: TokenGraph, source: int, reader: int) -> Ints:
    """Return N_source(reader, t) through every path."""
    known: dict[int, Ints] = {}
    for i in range(source + 1, reader + 1):
        parts = []
        for edge in graph.stages[i].inputs:
            if edge.lag:
                continue
            if edge.source == source:
                parts.append(edge.need)
            elif edge.source in known:
                before = np.concatenate([np.zeros(1, np.int64), known[edge.source]])
                parts.append(before[edge.need])
        if parts:
            known[i] = np.maximum.reduce(parts)
    return known[reader]
