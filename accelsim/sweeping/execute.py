"""Handing points to any executor of `concurrent.futures`' interface: in blocks, inputs once a worker, crashes survived."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import dataclass

from accelsim.report.sweep_folder import Known
from accelsim.sweeping.blocks import BlockSize
from accelsim.sweeping.pool import Pool
from accelsim.sweeping.worker import Inputs, Reply, Task, compute, computed
from devices.base.errors import AccelsimError

Done = Callable[[Known], None]
UNKNOWN_WORKERS = 32
"""Taken for an executor that does not say how many workers it has."""
IN_FLIGHT = 2
"""Blocks given to each worker at a time: one that it computes, and one that waits for it."""
BOUNCES = 2
"""After so many workers that lacked the inputs a block takes them along: an executor may hand inputs to a busy worker that has them."""


class BrokenSweepError(AccelsimError):
    """An executor that stopped working in the middle of a sweep."""


def run_here(tasks: Sequence[Task], inputs: Inputs, done: Done) -> None:
    """Compute all points in this process, in order."""
    for task in tasks:
        done(computed(task, inputs))


def run_on(
    executor: Executor, tasks: Sequence[Task], inputs: Inputs, done: Done, *, n_workers: int | None, pool: Pool | None = None
) -> None:
    """Compute all points on an executor; `pool` is ours when it can be started anew."""
    crew = _Crew(executor, inputs, done, n_workers=workers_of(executor, n_workers), pool=pool)
    crew.run(tasks)


def workers_of(executor: Executor, n_workers: int | None) -> int:
    """Return how many workers an executor has: as told, as it says itself, or a number that keeps most clusters busy."""
    if n_workers is not None:
        return n_workers
    if isinstance(executor, ThreadPoolExecutor | ProcessPoolExecutor):
        return int(executor._max_workers)  # type: ignore[union-attr]
    said = getattr(executor, "_max_workers", None)  # loky has it, too
    return int(said) if isinstance(said, int) else UNKNOWN_WORKERS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Flight:
    """A block that an executor has: whether the inputs went with it, and whether it flies alone after a crash."""

    block: tuple[Task, ...]
    with_inputs: bool
    alone: bool


class _Crew:
    """Points in flight, points that wait, and points that were in flight when a worker died."""

    def __init__(self, executor: Executor, inputs: Inputs, done: Done, *, n_workers: int, pool: Pool | None) -> None:
        self.executor, self.inputs, self.done, self.pool = executor, inputs, done, pool
        self.window = IN_FLIGHT * n_workers
        self.size = None if isinstance(executor, ThreadPoolExecutor) else BlockSize()
        self.packed: bytes | None = None
        self.n_sent = 0
        self.lacking: set[str] = set()
        self.bounces: Counter[str] = Counter()
        self.waiting: deque[Task] = deque()
        self.suspects: deque[Task] = deque()
        self.flying: dict[Future[Reply], _Flight] = {}

    def run(self, tasks: Sequence[Task]) -> None:
        """Compute all points."""
        self.waiting.extend(tasks)
        try:
            while self.waiting or self.suspects or self.flying:
                self._fill()
                self._land(wait(self.flying, return_when=FIRST_COMPLETED).done)
        except BaseException:
            for future in self.flying:
                future.cancel()
            raise

    def _fill(self) -> None:
        """Submit what may fly: after a crash one suspect at a time, so that the guilty one is known."""
        while self.suspects or self.waiting:
            alone = bool(self.suspects) or any(flight.alone for flight in self.flying.values())
            if len(self.flying) >= (1 if alone else self.window):
                return
            self._submit(self._next(alone=alone), alone=alone)

    def _next(self, *, alone: bool) -> tuple[Task, ...]:
        """Take the next block; a point that is alone, or that goes to a thread of this process, is a block of its own."""
        queue = self.suspects or self.waiting
        n = 1 if alone or self.size is None else self.size.of(len(queue), n_blocks=self.window)
        return tuple(queue.popleft() for _ in range(n))

    def _submit(self, block: tuple[Task, ...], *, alone: bool) -> None:
        """Hand a block over, with the inputs while fewer of them are under way than workers lack them, or when it came back too often."""
        n_under_way = sum(flight.with_inputs for flight in self.flying.values())
        with_inputs = n_under_way < len(self.lacking) or any(self.bounces[task.key] >= BOUNCES for task in block)
        flight = _Flight(block=block, with_inputs=with_inputs, alone=alone)
        if flight.with_inputs:
            self.packed = self.inputs.packed() if self.packed is None else self.packed
            self.n_sent += 1
        try:
            self.flying[self.executor.submit(compute, block, self.packed if flight.with_inputs else None)] = flight
        except BrokenExecutor as error:
            self._broken([flight], error)

    def _land(self, landed: set[Future[Reply]]) -> None:
        crashed: list[_Flight] = []
        cause: BaseException | None = None
        for future in landed:
            flight = self.flying.pop(future)
            error = future.exception()
            if isinstance(error, BrokenExecutor):
                crashed.append(flight)
                cause = error
            elif error is not None:
                self._blame(flight, error)
            else:
                self._take(flight, future.result())
        if cause is not None:
            self._broken(crashed, cause)

    def _take(self, flight: _Flight, reply: Reply) -> None:
        if self.pool is not None:
            self.pool.is_proven = True
        if reply.known is None:
            self.lacking.add(reply.worker)
            self.bounces[flight.block[0].key] += 1
        else:
            self.lacking.discard(reply.worker)
            if self.size is not None:
                self.size.take(len(reply.known), sum(known.elapsed_s for known in reply.known))
        known = reply.known or ()
        (self.suspects if flight.alone else self.waiting).extendleft(reversed(flight.block[len(known) :]))
        for one in known:
            self.done(one)

    def _blame(self, flight: _Flight, error: BaseException) -> None:
        """Record a point that got no answer; of a block nobody knows which point it was, so each is tried alone."""
        if len(flight.block) == 1:
            self.done(_unanswered(flight.block[0], error))
        else:
            self.suspects.extend(flight.block)

    def _broken(self, crashed: list[_Flight], cause: BaseException) -> None:
        """Start anew after the executor broke; a point that was alone with its worker is to blame, others are tried alone."""
        for future, flight in self.flying.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                self._take(flight, future.result())
            else:
                crashed.append(flight)
        self.flying.clear()
        self.lacking.clear()
        if self.pool is None:
            raise BrokenSweepError(
                f"the executor's workers died ({type(cause).__name__}: {cause}); start a new executor and run the same sweep again, "
                "which computes only what is missing"
            ) from cause
        self.executor = self.pool.again()
        for flight in crashed:
            if flight.alone and self.pool.is_proven:
                self._blame(flight, RuntimeError("it died while it computed this: killed, or out of memory"))
            else:
                self.suspects.extend(flight.block)


def _unanswered(task: Task, error: BaseException) -> Known:
    """Return the record of a point whose worker gave no answer."""
    return Known(key=task.key, answer={}, error=f"no answer from a worker: {type(error).__name__}: {error}", fault="broke")
