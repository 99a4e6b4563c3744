"""The times of every token by discrete events (SimPy): what is shared is contended for, services and arrivals may be random.

What is deterministic and unshared is arithmetic: a process makes an event only where it serves or really waits. An input that will be
there at a known time is not waited for twice: the token's start is put off, and start and service are one event. So it is with what is
shared: requests are served in their order, and how long a thing is held is known when it is asked for, so the time at which it will be
free is known too; only who holds several, and waits for the next of them, leaves that open.
"""

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Literal

import numpy as np
import simpy

from accelsim.timing.graph import Stage, TokenGraph
from accelsim.timing.grid import Ints
from accelsim.timing.recurrence import Times, deadlock_message
from devices.base.errors import DeadlockError

Service = Literal["deterministic", "exponential"]
Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """What a simulation saw: the times, the events it took, and the wait for each shared thing, picoseconds."""

    times: Times
    n_events: int
    waited_ps: dict[str, int]


def simulate_events(graph: TokenGraph, arrival_ps: Ints, *, service: Service = "deterministic", seed: int = 0) -> Run:
    """Run a graph; raise DeadlockError, naming who waits for whom, where the buffers are too small."""
    world = _World(graph, arrival_ps, service, seed)
    world.env.run()
    world.check_done()
    times = Times(
        graph=graph,
        n_images=len(arrival_ps),
        arrival_ps=arrival_ps,
        start=tuple(np.array(w.start, np.int64) for w in world.workers),
        finish=tuple(np.array(w.finish, np.int64) for w in world.workers),
        leave=tuple(np.array(w.leave, np.int64) for w in world.workers),
    )
    return Run(times=times, n_events=world.env.n_events, waited_ps=world.waited)


class _Environment(simpy.Environment):
    """An environment that counts its events."""

    n_events = 0

    def step(self) -> None:
        self.n_events += 1
        super().step()


class _Worker:
    """One stage while it runs: how far it is, who waits for its tokens, and whether it waits for room."""

    __slots__ = ("finish", "leave", "released", "room_event", "service", "stage", "start", "waiting")

    def __init__(self, stage: Stage, service: list[int], n_readers: int) -> None:
        self.stage = stage
        self.service = service
        self.start: list[int] = []
        self.finish: list[int] = []
        self.leave: list[int] = []
        self.released = [0] * n_readers
        self.waiting: list[tuple[int, simpy.Event]] = []
        self.room_event: simpy.Event | None = None

    def left(self, env: simpy.Environment) -> None:
        """Note that a token leaves now, and wake who waits for it."""
        self.leave.append(int(env.now))
        if self.waiting:
            count = len(self.leave)
            still = []
            for wanted, event in self.waiting:
                if wanted <= count:
                    event.succeed()
                else:
                    still.append((wanted, event))
            self.waiting = still


class _Shared:
    """One kind of shared thing: when each of its units is free, how many are held until a time not known yet, and who waits."""

    __slots__ = ("env", "free_at", "n_open", "queue")

    def __init__(self, env: simpy.Environment, capacity: int) -> None:
        self.env = env
        self.free_at = [0] * capacity
        self.n_open = 0
        self.queue: deque[simpy.Event] = deque()

    def ask(self) -> int | simpy.Event:
        """Take a unit from when it is free; return that time, or the event that will say it."""
        if not self.queue and self._is_known():
            return self._take()
        event = self.env.event()
        self.queue.append(event)
        self._look_again()
        return event

    def give_back(self, at: int) -> None:
        """Let a unit be free from a time on."""
        heappush(self.free_at, at)
        self.n_open -= 1
        self._serve()

    def _is_known(self) -> bool:
        return bool(self.free_at) and (self.n_open == 0 or self.free_at[0] <= self.env.now)

    def _take(self) -> int:
        self.n_open += 1
        return max(heappop(self.free_at), int(self.env.now))

    def _serve(self) -> None:
        while self.queue and self._is_known():
            self.queue.popleft().succeed(self._take())
        if self.queue:
            self._look_again()

    def _look_again(self) -> None:
        """Serve when the next unit is free: it may be so before those that are open are given back."""
        if self.free_at:
            self.env.timeout(self.free_at[0] - int(self.env.now)).callbacks.append(lambda _: self._serve())


class _World:
    """The environment, its workers and what they share."""

    def __init__(self, graph: TokenGraph, arrival_ps: Ints, service: Service, seed: int) -> None:
        self.env = _Environment()
        self.graph = graph
        self.arrival = arrival_ps.tolist()
        self.n_images = len(self.arrival)
        self.shared = {name: _Shared(self.env, capacity) for name, capacity in graph.resources.items()}
        self.waited = dict.fromkeys(graph.resources, 0)
        readers = graph.readers()
        seeds = np.random.SeedSequence(seed).spawn(len(graph.stages))
        self.workers = [
            _Worker(stage, _services(stage, self.n_images, service, np.random.default_rng(own)), len(of_stage))
            for stage, of_stage, own in zip(graph.stages, readers, seeds)
        ]
        place = {id(edge): k for of_stage in readers for k, (_, edge) in enumerate(of_stage)}
        for worker in self.workers:
            self.env.process(self._work(worker, [place[id(edge)] for edge in worker.stage.inputs]))

    @property
    def now(self) -> int:
        """The time, whole picoseconds."""
        return int(self.env.now)

    def _work(self, worker: _Worker, places: list[int]) -> Process:
        """Serve the stage's tokens: wait for data, serve, release, wait for room, leave."""
        env, stage, size = self.env, worker.stage, worker.stage.n_tokens
        inputs = [
            (self.workers[e.source], e.need.tolist(), e.release.tolist(), self.graph.stages[e.source], e.lag, k)
            for e, k in zip(stage.inputs, places)
        ]
        is_first, service = not inputs, worker.service
        held = _holds(stage, service)
        for image in range(self.n_images):
            ahead = image * size
            for token in range(size):
                ready = self.arrival[image] if is_first else 0
                for source, need, _, made, lag, _ in inputs:
                    wanted = need[token]
                    if wanted == 0 or image < lag:
                        continue
                    index = (image - lag) * made.n_tokens + wanted
                    if len(source.leave) < index:
                        event = env.event()
                        source.waiting.append((index, event))
                        yield event
                    ready = max(ready, source.leave[index - 1] + made.fill_ps)
                delay, busy = max(0, ready - self.now), service[ahead + token]
                if stage.holds:
                    if delay:
                        yield env.timeout(delay)
                    start = yield from self._hold(stage.holds, held[ahead + token])
                    worker.start.append(start)
                    spend = start + busy - self.now
                    if spend:
                        yield env.timeout(spend)
                else:
                    worker.start.append(self.now + delay)
                    if delay + busy:
                        yield env.timeout(delay + busy)
                worker.finish.append(self.now)
                for source, _, release, made, lag, k in inputs:
                    if image >= lag:
                        self._release(source, k, (image - lag) * made.n_tokens + release[token])
                while stage.room is not None and worker.released and len(worker.leave) - min(worker.released) >= stage.room:
                    worker.room_event = env.event()
                    yield worker.room_event
                worker.left(env)

    def _hold(self, names: tuple[str, ...], hold_ps: int) -> Generator[simpy.Event, Any, int]:
        """Get shared things one after the other, hold them together from when the last is there, and return that time."""
        held, at = [], self.now
        for k, name in enumerate(names):
            shared, asked = self.shared[name], self.now
            answer = shared.ask()
            at = answer if isinstance(answer, int) else (yield answer)
            self.waited[name] += at - asked
            held.append(shared)
            if k < len(names) - 1 and at > self.now:
                yield self.env.timeout(at - self.now)
        for shared in held:
            shared.give_back(at + hold_ps)
        return at

    def _release(self, source: _Worker, k: int, count: int) -> None:
        source.released[k] = count
        event, room = source.room_event, source.stage.room
        if event is not None and room is not None and len(source.leave) - min(source.released) < room:
            source.room_event = None
            event.succeed()

    def check_done(self) -> None:
        """Raise DeadlockError where stages still have tokens."""
        finished = np.array([len(w.finish) for w in self.workers], np.int64)
        left = np.array([len(w.leave) for w in self.workers], np.int64)
        if np.any(left < [w.stage.n_tokens * self.n_images for w in self.workers]):
            raise DeadlockError(deadlock_message(self.graph, finished, left, self.n_images))


def _holds(stage: Stage, service: list[int]) -> list[int]:
    """Return for how long each token holds what is shared: the share of its service that it is on average."""
    if stage.hold_ps is None:
        return [0] * len(service)
    share = np.divide(stage.hold_ps, stage.service_ps, out=np.zeros(stage.n_tokens), where=stage.service_ps > 0)
    listed: list[int] = np.rint(np.tile(share, len(service) // stage.n_tokens) * service).astype(np.int64).tolist()
    return listed


def _services(stage: Stage, n_images: int, service: Service, rng: np.random.Generator) -> list[int]:
    """Return the service of each token, random ones with the stage's own stream."""
    every = np.tile(stage.service_ps, n_images)
    if service == "exponential":
        every = np.rint(rng.exponential(1.0, len(every)) * every).astype(np.int64)
    listed: list[int] = every.tolist()
    return listed
