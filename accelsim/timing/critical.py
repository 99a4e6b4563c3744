"""What a run's makespan hangs on: the slack of every stage, and the path of tokens that leaves none.

The slack of a token is how much later it could finish with nothing ending later; a stage's is the least of its tokens'. With the times
of the recurrence taken in reverse order,

    latest finish(s, t) = min( latest leave(s, t),  latest leave of the tokens whose room it gives back )
    latest leave(s, t)  = min( makespan - fill,  latest start(s, t+1),  latest start of what needs it - fill )            (1)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.timing.grid import Ints
from accelsim.timing.recurrence import Tables, Times
from devices.base.jit import jit


@dataclass(frozen=True, slots=True, kw_only=True)
class Critical:
    """Slack of each stage, picoseconds, and how much of the makespan the critical path spends in each (fills included)."""

    slack_ps: tuple[int, ...]
    share_ps: dict[str, int]


def critical(times: Times) -> Critical:
    """Return slack and critical path of a run by recurrence."""
    assert times.order is not None  # only the recurrence has it
    tables = Tables.of(times.graph, times.n_images)
    start, finish, leave = (np.concatenate(parts) for parts in (times.start, times.finish, times.leave))
    makespan = times.makespan_ps
    latest_finish = np.full(len(finish), np.iinfo(np.int64).max, np.int64)
    latest_leave = np.repeat(makespan - tables.fill, np.diff(tables.offset))
    _latest(
        times.n_images, tables.offset, tables.n_tokens, tables.service, tables.token_offset, tables.fill, tables.room, tables.edge_offset,
        tables.edge_source, tables.edge_lag, tables.need, tables.need_offset, tables.reader_offset, tables.reader_stage, tables.reader_lag,
        tables.giver, tables.giver_offset, times.order, latest_finish, latest_leave,
    )  # fmt: skip
    slack = latest_finish - finish
    spans = list(zip(tables.offset[:-1], tables.offset[1:]))
    return Critical(slack_ps=tuple(int(slack[a:b].min()) for a, b in spans), share_ps=_path(times, tables, start, finish, leave))


@jit()
def _latest(
    n_images: int, offset: NDArray, n_tokens: NDArray, service: NDArray, token_offset: NDArray, fill: NDArray, room: NDArray,
    edge_offset: NDArray, edge_source: NDArray, edge_lag: NDArray, need: NDArray, need_offset: NDArray, reader_offset: NDArray,
    reader_stage: NDArray, reader_lag: NDArray, giver: NDArray, giver_offset: NDArray, order: NDArray, latest_finish: NDArray,
    latest_leave: NDArray,
) -> None:  # fmt: skip
    """Work (1) out, last events first."""
    finished = n_tokens * n_images
    left = n_tokens * n_images
    for event in order[::-1]:
        s = event // 2
        size, base = n_tokens[s], offset[s]
        if event % 2:  # a leave
            left[s] -= 1
            k = left[s]
            late = latest_leave[base + k]
            latest_finish[base + k] = min(latest_finish[base + k], late)
            if room[s] >= 0 and k >= room[s]:
                back = k - room[s]
                image, token = back // size, back % size
                for r in range(reader_offset[s], reader_offset[s + 1]):
                    c = reader_stage[r]
                    if image + reader_lag[r] < n_images:
                        u = offset[c] + (image + reader_lag[r]) * n_tokens[c] + giver[giver_offset[r] + token]
                        latest_finish[u] = min(latest_finish[u], late)
        else:
            finished[s] -= 1
            k = finished[s]
            image, token = k // size, k % size
            late = latest_finish[base + k] - service[token_offset[s] + token]
            if k:
                latest_leave[base + k - 1] = min(latest_leave[base + k - 1], late)
            for e in range(edge_offset[s], edge_offset[s + 1]):
                p, wanted = edge_source[e], need[need_offset[e] + token]
                if image >= edge_lag[e] and wanted:
                    index = offset[p] + (image - edge_lag[e]) * n_tokens[p] + wanted - 1
                    latest_leave[index] = min(latest_leave[index], late - fill[p])


def _path(times: Times, tables: Tables, start: Ints, finish: Ints, leave: Ints) -> dict[str, int]:
    """Return how long the critical path is in each stage, following from the last event what each one waited for."""
    graph, offset = times.graph, tables.offset
    readers = graph.readers()
    share = {stage.name: 0 for stage in graph.stages}
    s = max(range(len(graph.stages)), key=lambda i: int(times.leave[i][-1]) + graph.stages[i].fill_ps)
    k = len(times.leave[s]) - 1
    share[graph.stages[s].name] += graph.stages[s].fill_ps
    while True:
        if leave[offset[s] + k] > finish[offset[s] + k]:  # it waited for room: go on with the token that gave it back
            image, token = divmod(k - (graph.stages[s].room or 0), graph.stages[s].n_tokens)
            for c, edge in readers[s]:
                u = (image + edge.lag) * graph.stages[c].n_tokens + int(np.searchsorted(edge.release, token + 1))
                if finish[offset[c] + u] == leave[offset[s] + k]:
                    s, k = c, u
                    break
        begun = int(start[offset[s] + k])
        share[graph.stages[s].name] += int(finish[offset[s] + k]) - begun
        before = _waited_for(times, tables, s, k, begun, leave)
        if before is None:
            return share
        if before[0] != s:
            share[graph.stages[before[0]].name] += graph.stages[before[0]].fill_ps
        s, k = before


def _waited_for(times: Times, tables: Tables, s: int, k: int, begun: int, leave: Ints) -> tuple[int, int] | None:
    """Return the token whose leaving let token k of stage s begin; None where it was its image, or nothing."""
    if begun == 0:
        return None
    if k and int(leave[tables.offset[s] + k - 1]) == begun:
        return s, k - 1
    stage = times.graph.stages[s]
    image, token = divmod(k, stage.n_tokens)
    for edge in stage.inputs:
        source = times.graph.stages[edge.source]
        index = (image - edge.lag) * source.n_tokens + int(edge.need[token]) - 1
        if image >= edge.lag and edge.need[token] and int(leave[tables.offset[edge.source] + index]) + source.fill_ps == begun:
            return edge.source, index
    return None
