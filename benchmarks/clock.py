"""CPU time of alternatives that take turns, so that a busy machine hits all of them alike."""

import time
from collections.abc import Callable, Mapping
from statistics import median


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of one call, all threads together."""
    started = time.process_time()
    work()
    return time.process_time() - started


def interleaved(works: Mapping[str, Callable[[], object]], *, n: int) -> dict[str, float]:
    """Return the median CPU time of each after one round that is not counted (it compiles, and fills caches)."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(n + 1):
        for name, work in works.items():
            seconds = cpu_seconds(work)
            if turn:
                times[name].append(seconds)
    return {name: median(found) for name, found in times.items()}


def shown(seconds: float) -> str:
    """Return a time with a unit that fits."""
    return f"{seconds:.3g} s" if seconds >= 1.0 else f"{1e3 * seconds:.3g} ms"
