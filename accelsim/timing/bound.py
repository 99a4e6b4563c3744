"""Closed-form lower bounds on the time of a run: no engine is faster.

With work w_s the time that one image keeps stage s busy, head h_s the least time before its first token can start, and tail t_s the
least time after its last token has been served,

    interval  >=  max( max_s w_s,  work on each shared thing / how many there are of it,  max_s r_s )      (pipeline)
    makespan of n images  >=  max_s ( h_s + n w_s + t_s,  h_s + (n - 1) r_s + w_s + t_s )                  (roofline of stages)

where stage s waits for what it began an image before, and r_s is the least time of that round. For a line of stages of one token an image
the second is exact: sum of services + (n - 1) times the largest.
"""

from dataclasses import dataclass

import numpy as np

from accelsim.timing.graph import Edge, Stage, TokenGraph


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Least times of a graph, picoseconds: between images, of one image, and the stage or shared thing that has most to do.

    `round_ps` is r_s, by stage: 0 for those that wait for no image before.
    """

    interval_ps: float
    latency_ps: int
    bottleneck: str
    head_ps: tuple[int, ...]
    tail_ps: tuple[int, ...]
    round_ps: tuple[int, ...]

    def makespan_ps(self, graph: TokenGraph, n_images: int) -> float:
        """Return the least makespan of `n_images` images that are all there at 0."""
        each = zip(self.head_ps, graph.stages, self.tail_ps, self.round_ps)
        stages = max(h + s.work_ps + (n_images - 1) * max(s.work_ps, r) + t for h, s, t, r in each)
        return max(stages, n_images * max(graph.shared_work_ps().values(), default=0.0))


def bound(graph: TokenGraph) -> Bound:
    """Return the bounds of a graph."""
    head, tail, rounds = _heads(graph), _tails(graph), _rounds(graph)
    work: dict[str, float] = {stage.name: stage.work_ps for stage in graph.stages}
    work |= graph.shared_work_ps()
    slowest = max(work, key=lambda name: work[name])
    latency = max(h + s.work_ps + t for h, s, t in zip(head, graph.stages, tail))
    interval = max(work[slowest], *rounds)
    return Bound(interval_ps=interval, latency_ps=latency, bottleneck=slowest, head_ps=head, tail_ps=tail, round_ps=rounds)


def _heads(graph: TokenGraph) -> tuple[int, ...]:
    """Return the least time before each stage's first token can start."""
    heads: list[int] = []
    for stage in graph.stages:
        ready = [heads[e.source] + _before(graph.stages[e.source], e) for e in stage.inputs if e.lag == 0 and e.need[0]]
        heads.append(max(ready, default=0))
    return tuple(heads)


def _before(source: Stage, edge: Edge) -> int:
    """Return the least time from a source's first start until a reader's first token, which needs some of it, can start."""
    return int(source.service_ps[: int(edge.need[0])].sum()) + source.fill_ps


def _rounds(graph: TokenGraph) -> tuple[int, ...]:
    """Return r_s: the longest way from a stage's first start to what it then waits for, over the images between."""
    rounds = []
    for s, stage in enumerate(graph.stages):
        late = [e for e in stage.inputs if e.lag and e.need[0]]
        since = _since(graph, s) if late else {}
        rounds.append(max([0, *((since[e.source] + _before(graph.stages[e.source], e)) // e.lag for e in late if e.source in since)]))
    return tuple(rounds)


def _since(graph: TokenGraph, s: int) -> dict[int, int]:
    """Return the least time from the first start of stage s to that of the stages that hang on it."""
    since = {s: 0}
    for i in range(s + 1, len(graph.stages)):
        edges = [e for e in graph.stages[i].inputs if e.lag == 0 and e.need[0] and e.source in since]
        if edges:
            since[i] = max(since[e.source] + _before(graph.stages[e.source], e) for e in edges)
    return since


def _tails(graph: TokenGraph) -> tuple[int, ...]:
    """Return the least time after each stage's last token has been served, until the last result is there."""
    readers = graph.readers()
    tails = [0] * len(graph.stages)
    for i in reversed(range(len(graph.stages))):
        stage = graph.stages[i]
        after = [_after(graph.stages[c], e, stage.n_tokens, tails[c]) for c, e in readers[i] if e.lag == 0]
        tails[i] = stage.fill_ps + max(after, default=0)
    return tuple(tails)


def _after(reader: Stage, edge: Edge, last: int, tail: int) -> int:
    """Return the least time that a reader and what follows it still take once the source's last token is there."""
    first = int(np.searchsorted(edge.need, last))
    if first == reader.n_tokens:  # no token needs it: the reader may have finished before
        return 0
    return int(reader.service_ps[first:].sum()) + tail
