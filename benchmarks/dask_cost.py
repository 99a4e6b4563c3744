"""What a sweep costs on Dask beside its points: the start, what goes on in the background for as long as it lasts, and each task.

A cluster of two workers that has nothing to do takes CPU time all the same (heartbeats, watching memory, sampling of its own stacks every
10 ms). Where other work on the machine makes a sweep last longer, that grows with the wall time and says nothing of the points. So it is
measured on the idle cluster, and the efficiency is told twice: of all that was used, and with the background of the time that two free
cores would have taken.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from accelsim import Span
from benchmarks.sweeps import N_WORKERS, QUIET, asked, bare_s, cpu_s
from validation.tables import Row

IDLE_S = 10.0
SIZES = ((10, 10), (15, 20), (20, 50))
"""Values of the two axes."""


def rows() -> Iterator[Row]:
    """Yield a row for each number of points, with Dask's defaults and with the settings that cost less."""
    point_s = bare_s()
    for name, settings in (("default", {}), ("quiet", QUIET)):
        for size in SIZES:
            yield _row(size, point_s, name=name, settings=settings)


def _row(size: tuple[int, int], point_s: float, *, name: str, settings: Mapping[str, Any]) -> Row:
    import dask
    import distributed

    before = cpu_s()
    with (
        dask.config.set(settings),
        distributed.LocalCluster(n_workers=N_WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        start_s = _used_s(client, 0.0)
        background, idle = _background(client)
        here, wall = time.process_time(), time.perf_counter()
        workers = _workers_s(client)
        report = asked(axes=_axes(size), executor=client.get_executor(), workers=N_WORKERS)
        wall = time.perf_counter() - wall
        worked = _workers_s(client) - workers
        here = time.process_time() - here
    used = cpu_s() - before - idle
    points_s = len(report.done) * point_s
    alone = used - background * max(0.0, wall - worked / N_WORKERS)
    return {
        "settings": name, "points": str(len(report.done)), "cpu_s": f"{used:.1f}", "wall_s": f"{wall:.0f}",
        "start_s": f"{start_s:.1f}", "background_ms_per_s": f"{1e3 * background:.0f}", "background_s": f"{background * wall:.1f}",
        "client_and_scheduler_s": f"{here:.1f}", "efficiency": f"{points_s / used:.3f}",
        "efficiency_two_free_cores": f"{points_s / alone:.3f}",
    }  # fmt: skip


def _axes(size: tuple[int, int]) -> dict[str, Span]:
    return {
        "cell.programming.error_rel": Span(low=0.0005, high=0.002, n=size[0], scale="log"),
        "mapping.g_used_siemens": Span(low="10 uS", high="25 uS", n=size[1]),
    }


def _background(client: Any) -> tuple[float, float]:
    """Return what the idle cluster takes a second, client and scheduler included, and what measuring it took."""
    before, wall = _used_s(client, time.process_time()), time.perf_counter()
    time.sleep(IDLE_S)
    used = _used_s(client, time.process_time()) - before
    return used / (time.perf_counter() - wall), used


def _used_s(client: Any, here_s: float) -> float:
    return here_s + _workers_s(client)


def _workers_s(client: Any) -> float:
    return float(sum(client.run(time.process_time).values()))
