"""What a run's makespan hangs on: the slack of every stage, and the path of tokens that leaves none.

The slack of a token is how much later it could finish with nothing ending later; a stage's is the least of its tokens'. With the times
of the recurrence taken in reverse order,

    latest finish(s, t) = min( latest leave(s, t),  latest leave of the tokens whose room it gives back )
    latest leave(s, t)  = min( makespan - fill,  latest start(s, t+1),  latest start of what needs it - fill )            (1)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.timing.recurrence import Tables, Times
from devices.base.jit import jit


@dataclass(frozen=True, slots=True, kw_only=True)
class Critical:
    """Slack of each stage, picoseconds, and how much of the makespan the critical path spends in each (fills included)."""

    slack_ps: tuple[int, ...]
    share_ps: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalPath:
    """How long the critical path is in each stage, picoseconds (fills included), and at which stages it waits for room behind them."""

    share_ps: tuple[int, ...]
    full: tuple[int, ...]


def critical(times: Times) -> Critical:
    """Return slack and critical path of a run by recurrence."""
    assert times.order is not None  # only the recurrence has it
    tables = Tables.of(times.graph, times.n_images)
    finish = np.concatenate(times.finish)
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
    path = critical_path(times)
    shares = {stage.name: share for stage, share in zip(times.graph.stages, path.share_ps)}
    return Critical(slack_ps=tuple(int(slack[a:b].min()) for a, b in spans), share_ps=shares)


def critical_path(times: Times) -> CriticalPath:
    """Return the critical path, following from the last event what each one waited for."""
    tables, graph = Tables.of(times.graph, times.n_images), times.graph
    start, finish, leave = (np.concatenate(parts) for parts in (times.start, times.finish, times.leave))
    last = max(range(len(graph.stages)), key=lambda i: int(times.leave[i][-1]) + graph.stages[i].fill_ps)
    share, full = np.zeros(len(graph.stages), np.int64), np.zeros(len(graph.stages), np.bool_)
    share[last] = graph.stages[last].fill_ps
    _follow(
        last, len(times.leave[last]) - 1, tables.offset, tables.n_tokens, tables.fill, tables.room, tables.edge_offset, tables.edge_source,
        tables.edge_lag, tables.need, tables.need_offset, tables.reader_offset, tables.reader_stage, tables.reader_lag, tables.giver,
        tables.giver_offset, start, finish, leave, share, full,
    )  # fmt: skip
    return CriticalPath(share_ps=tuple(share.tolist()), full=tuple(np.flatnonzero(full).tolist()))


@jit()
def _follow(
    s: int, k: int, offset: NDArray, n_tokens: NDArray, fill: NDArray, room: NDArray, edge_offset: NDArray, edge_source: NDArray,
    edge_lag: NDArray, need: NDArray, need_offset: NDArray, reader_offset: NDArray, reader_stage: NDArray, reader_lag: NDArray,
    giver: NDArray, giver_offset: NDArray, start: NDArray, finish: NDArray, leave: NDArray, share: NDArray, full: NDArray,
) -> None:  # fmt: skip
    """Add up the time of each stage on the way back from token k of stage s to the first event, and mark where room was waited for."""
    while True:
        at = offset[s] + k
        if leave[at] > finish[at]:  # it waited for room: go on with the token that gave it back
            full[s] = True
            back = k - room[s]
            image, token = back // n_tokens[s], back % n_tokens[s]
            for r in range(reader_offset[s], reader_offset[s + 1]):
                c = reader_stage[r]
                u = (image + reader_lag[r]) * n_tokens[c] + giver[giver_offset[r] + token]
                if finish[offset[c] + u] == leave[at]:
                    s, k = c, u
                    break
            at = offset[s] + k
        begun = start[at]
        share[s] += finish[at] - begun
        if begun == 0:
            return
        if k and leave[at - 1] == begun:
            k -= 1
            continue
        image, token = k // n_tokens[s], k % n_tokens[s]
        found = False
        for e in range(edge_offset[s], edge_offset[s + 1]):
            p, wanted = edge_source[e], need[need_offset[e] + token]
            index = (image - edge_lag[e]) * n_tokens[p] + wanted - 1
            if image >= edge_lag[e] and wanted and leave[offset[p] + index] + fill[p] == begun:
                share[p] += fill[p]
                s, k = p, index
                found = True
                break
        if not found:  # its image
            return


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
