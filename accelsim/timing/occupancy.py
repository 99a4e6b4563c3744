"""What stages and buffers did in a run: shares of the time, and how full buffers were at most."""

from dataclasses import dataclass

import numpy as np

from accelsim.timing.recurrence import Times


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """A stage's time, picoseconds: serving, done but without room behind it, and waiting to begin. They add up to the makespan."""

    busy_ps: int
    blocked_ps: int
    starved_ps: int


def shares(times: Times) -> tuple[Shares, ...]:
    """Return the shares of every stage; waits for what is shared count as waiting to begin."""
    makespan = times.makespan_ps
    found = []
    for start, finish, leave in zip(times.start, times.finish, times.leave):
        busy, blocked = int((finish - start).sum()), int((leave - finish).sum())
        found.append(Shares(busy_ps=busy, blocked_ps=blocked, starved_ps=makespan - busy - blocked))
    return tuple(found)


def peaks(times: Times) -> tuple[int, ...]:
    """Return the most tokens that were in the buffer behind each stage at a time; 0 where nobody reads it."""
    most = []
    for s, readers in enumerate(times.graph.readers()):
        size = times.graph.stages[s].n_tokens
        freed = np.zeros(size * times.n_images, np.int64)
        for c, edge in readers:
            if edge.lag:
                continue
            giver = np.searchsorted(edge.release, np.arange(1, size + 1))
            ends = times.finish[c].reshape(times.n_images, -1)[:, giver].reshape(-1)
            freed = np.maximum(freed, ends)
        held = np.arange(1, len(freed) + 1) - np.searchsorted(np.sort(freed), times.leave[s], side="right")
        most.append(int(held.max()) if readers else 0)
    return tuple(most)
