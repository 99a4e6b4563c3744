"""The times of every token by recurrence (max-plus): exact where nothing is shared.

For token t of stage s, with service q, edges e to the sources P, fill f and room R behind the stage:

    start(s, t)  = max( leave(s, t-1),  there(P, need_e(t) - 1) for every e,  arrival of the image)
    finish(s, t) = start + q(s, t)
    leave(s, t)  = max( finish(s, t),  finish(c, u) for every reader c )     u: c's first token that gives back token t - R
    there(s, t)  = leave + f(s)

Stages are advanced as far as what is known allows, round after round. Where nothing advances any more and tokens are left, the stages
wait for each other.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.timing.graph import TokenGraph
from accelsim.timing.grid import Ints
from devices.base.errors import DeadlockError
from devices.base.jit import jit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Times:
    """When every token of a run started, finished and left, picoseconds: for each stage `(n_images * n_tokens,)`."""

    graph: TokenGraph
    n_images: int
    arrival_ps: Ints
    start: tuple[Ints, ...]
    finish: tuple[Ints, ...]
    leave: tuple[Ints, ...]
    order: NDArray[np.int32] | None = None
    """In which order the events were worked out, `2 stage` for a finish and `2 stage + 1` for a leave; None from other engines."""

    @property
    def makespan_ps(self) -> int:
        """From the time 0 until the last result is there."""
        return max(int(leave[-1]) + stage.fill_ps for leave, stage in zip(self.leave, self.graph.stages))

    @property
    def done_ps(self) -> Ints:
        """When each image's last result is there, `(n_images,)`."""
        last = [leave.reshape(self.n_images, -1)[:, -1] + stage.fill_ps for leave, stage in zip(self.leave, self.graph.stages)]
        return np.maximum.reduce(last)

    @property
    def latency_ps(self) -> Ints:
        """From arrival to result, `(n_images,)`."""
        return self.done_ps - self.arrival_ps


def recurrence(graph: TokenGraph, arrival_ps: Ints) -> Times:
    """Return the times of every token; raise DeadlockError, naming who waits for whom, where the buffers are too small."""
    tables = Tables.of(graph, len(arrival_ps))
    start, finish, leave = (np.zeros(int(tables.offset[-1]), np.int64) for _ in range(3))
    finished, left = np.zeros(len(graph.stages), np.int64), np.zeros(len(graph.stages), np.int64)
    order = tables.advance(arrival_ps, start, finish, leave, finished, left)
    stuck = [i for i, total in enumerate(np.diff(tables.offset)) if left[i] < total]
    if stuck:
        raise DeadlockError(deadlock_message(graph, finished, left, len(arrival_ps)))
    parts = [slice(int(a), int(b)) for a, b in zip(tables.offset[:-1], tables.offset[1:])]
    return Times(
        graph=graph,
        n_images=len(arrival_ps),
        arrival_ps=arrival_ps,
        start=tuple(start[p] for p in parts),
        finish=tuple(finish[p] for p in parts),
        leave=tuple(leave[p] for p in parts),
        order=order,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tables:
    """A graph as flat arrays, for the kernel."""

    n_images: int
    offset: Ints
    n_tokens: Ints
    service: Ints
    token_offset: Ints
    fill: Ints
    room: Ints
    edge_offset: Ints
    edge_source: Ints
    edge_lag: Ints
    need: Ints
    need_offset: Ints
    reader_offset: Ints
    reader_stage: Ints
    reader_lag: Ints
    giver: Ints
    giver_offset: Ints

    @classmethod
    def of(cls, graph: TokenGraph, n_images: int) -> "Tables":
        """Return the tables of a graph over `n_images` images."""
        n_tokens = np.array([stage.n_tokens for stage in graph.stages], np.int64)
        edges = [edge for stage in graph.stages for edge in stage.inputs]
        readers = [pair for of_stage in graph.readers() for pair in of_stage]
        givers = [np.searchsorted(edge.release, np.arange(1, n_tokens[edge.source] + 1)) for _, edge in readers]
        return cls(
            n_images=n_images,
            offset=_offsets(n_tokens * n_images),
            n_tokens=n_tokens,
            service=_joined([stage.service_ps for stage in graph.stages]),
            token_offset=_offsets(n_tokens),
            fill=np.array([stage.fill_ps for stage in graph.stages], np.int64),
            room=np.array([-1 if stage.room is None else stage.room for stage in graph.stages], np.int64),
            edge_offset=_offsets(np.array([len(stage.inputs) for stage in graph.stages], np.int64)),
            edge_source=np.array([edge.source for edge in edges], np.int64),
            edge_lag=np.array([edge.lag for edge in edges], np.int64),
            need=_joined([edge.need for edge in edges]),
            need_offset=_offsets(np.array([len(edge.need) for edge in edges], np.int64)),
            reader_offset=_offsets(np.array([len(of_stage) for of_stage in graph.readers()], np.int64)),
            reader_stage=np.array([reader for reader, _ in readers], np.int64),
            reader_lag=np.array([edge.lag for _, edge in readers], np.int64),
            giver=_joined(givers),
            giver_offset=_offsets(np.array([len(g) for g in givers], np.int64)),
        )

    def advance(self, arrival: Ints, start: Ints, finish: Ints, leave: Ints, finished: Ints, left: Ints) -> NDArray[np.int32]:
        """Fill in all times that can be known, and return the order of the events."""
        order = np.zeros(2 * int(self.offset[-1]), np.int32)
        _advance(
            self.n_images, self.offset, self.n_tokens, self.service, self.token_offset, self.fill, self.room, self.edge_offset,
            self.edge_source, self.edge_lag, self.need, self.need_offset, self.reader_offset, self.reader_stage, self.reader_lag,
            self.giver, self.giver_offset, arrival, start, finish, leave, finished, left, order,
        )  # fmt: skip
        return order


def _offsets(lengths: Ints) -> Ints:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def _joined(parts: list[Ints]) -> Ints:
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)


@jit()
def _advance(
    n_images: int, offset: NDArray, n_tokens: NDArray, service: NDArray, token_offset: NDArray, fill: NDArray, room: NDArray,
    edge_offset: NDArray, edge_source: NDArray, edge_lag: NDArray, need: NDArray, need_offset: NDArray, reader_offset: NDArray,
    reader_stage: NDArray, reader_lag: NDArray, giver: NDArray, giver_offset: NDArray, arrival: NDArray, start: NDArray, finish: NDArray,
    leave: NDArray, finished: NDArray, left: NDArray, order: NDArray,
) -> None:  # fmt: skip
    """Advance every stage as far as it goes, until none does."""
    n_stages = len(n_tokens)
    moved = True
    n_events = 0
    while moved:
        moved = False
        for s in range(n_stages):
            size, base = n_tokens[s], offset[s]
            total = size * n_images
            while True:
                if left[s] < finished[s]:  # a token is served and not gone yet
                    k = left[s]
                    time = finish[base + k]
                    known = True
                    if room[s] >= 0 and k >= room[s]:
                        back = k - room[s]
                        image, token = back // size, back % size
                        for r in range(reader_offset[s], reader_offset[s + 1]):
                            c = reader_stage[r]
                            reader_image = image + reader_lag[r]
                            if reader_image >= n_images:
                                continue
                            u = reader_image * n_tokens[c] + giver[giver_offset[r] + token]
                            if finished[c] <= u:
                                known = False
                                break
                            time = max(time, finish[offset[c] + u])
                    if not known:
                        break
                    leave[base + k] = time
                    left[s] = k + 1
                    order[n_events] = 2 * s + 1
                    n_events += 1
                    moved = True
                elif finished[s] < total:
                    k = finished[s]
                    image, token = k // size, k % size
                    time = leave[base + k - 1] if k else 0
                    if edge_offset[s] == edge_offset[s + 1]:
                        time = max(time, arrival[image])
                    known = True
                    for e in range(edge_offset[s], edge_offset[s + 1]):
                        p = edge_source[e]
                        source_image = image - edge_lag[e]
                        wanted = need[need_offset[e] + token]
                        if source_image < 0 or wanted == 0:
                            continue
                        index = source_image * n_tokens[p] + wanted - 1
                        if left[p] <= index:
                            known = False
                            break
                        time = max(time, leave[offset[p] + index] + fill[p])
                    if not known:
                        break
                    start[base + k] = time
                    finish[base + k] = time + service[token_offset[s] + token]
                    finished[s] = k + 1
                    order[n_events] = 2 * s
                    n_events += 1
                    moved = True
                else:
                    break


def waiting_circle(graph: TokenGraph, n_images: int) -> list[int]:
    """Return the stages that come to wait for each other, or none."""
    tables = Tables.of(graph, n_images)
    start, finish, leave = (np.zeros(int(tables.offset[-1]), np.int64) for _ in range(3))
    finished, left = np.zeros(len(graph.stages), np.int64), np.zeros(len(graph.stages), np.int64)
    tables.advance(np.zeros(n_images, np.int64), start, finish, leave, finished, left)
    if all(left[i] == total for i, total in enumerate(np.diff(tables.offset))):
        return []
    return [stage for stage, _ in _circle(graph, finished, left, n_images)]


def deadlock_message(graph: TokenGraph, finished: Ints, left: Ints, n_images: int) -> str:
    """Return the circle of waits of a run that came to a stop, in words."""
    waits = "; ".join(words for _, words in _circle(graph, finished, left, n_images))
    return f"the stages wait for each other: {waits}. Give one of these buffers more room"


def _circle(graph: TokenGraph, finished: Ints, left: Ints, n_images: int) -> list[tuple[int, str]]:
    readers = graph.readers()
    waits: dict[int, tuple[int, str]] = {}
    for s, stage in enumerate(graph.stages):
        if left[s] == stage.n_tokens * n_images:
            continue
        if left[s] < finished[s]:
            image, token = divmod(int(left[s]) - (stage.room or 0), stage.n_tokens)
            for c, edge in readers[s]:
                u = (image + edge.lag) * graph.stages[c].n_tokens + int(np.searchsorted(edge.release, token + 1))
                if finished[c] <= u:
                    waits[s] = (c, f"{stage.name} has no room behind it ({stage.room} tokens) until {graph.stages[c].name} releases some")
                    break
        else:
            image, token = divmod(int(finished[s]), stage.n_tokens)
            for edge in stage.inputs:
                index = (image - edge.lag) * graph.stages[edge.source].n_tokens + int(edge.need[token]) - 1
                if image >= edge.lag and edge.need[token] and left[edge.source] <= index:
                    waits[s] = (edge.source, f"{stage.name} waits for {graph.stages[edge.source].name}")
                    break
    at, seen = next(iter(waits)), list[int]()
    while at not in seen and at in waits:
        seen.append(at)
        at = waits[at][0]
    circle = seen[seen.index(at) :] if at in seen else seen
    return [(s, waits[s][1]) for s in circle]
