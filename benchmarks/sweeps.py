"""A sweep of 1,000 predictions on every executor: the same bits, what the machinery costs, and a kill in the middle.

Efficiency is the CPU time of the bare `place` and `predict` calls over that of the whole sweep, parent and workers together, their start
and compilation included; CPU time, because the machine may have other work.
"""

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelsim import Accelerator, Span, SweepReport, load_embedded, place, predict, sweep
from validation.tables import Row

SEED, N_IMAGES, N_WORKERS = 7, 32, 2
AXES = {
    "cell.programming.error_rel": Span(low=0.0005, high=0.002, n=20, scale="log"),
    "mapping.g_used_siemens": Span(low="10 uS", high="25 uS", n=50),
}
N_POINTS, N_BARE = 1000, 100
QUIET = {
    "distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "1s", "distributed.admin.system-monitor.interval": "5s",
    "distributed.worker.memory.monitor-interval": "1s", "distributed.client.scheduler-info-interval": "30s",
}  # fmt: skip
"""Settings of a Dask cluster that does little beside its tasks; as environment variables in docs/howto/cluster.rst."""


def asked(axes: Mapping[str, Any] = AXES, **how: Any) -> SweepReport:
    """Return the sweep, computed as `how` says."""
    network, samples = load_embedded("fashion_cnn")
    images = samples[64 : 64 + N_IMAGES]
    return sweep(network, Accelerator.preset("memse"), images, seed=SEED, axes=axes, calibration=samples[:64], **how)


def rows(ways: Sequence[str] = ()) -> Iterator[Row]:
    """Yield a row for each way to compute the sweep, and one of a sweep that was killed; or only for some of them."""
    unknown = sorted({*ways} - {*WAYS, KILLED})
    if unknown:
        raise SystemExit(f"sweeps: {', '.join(unknown)}: need {', '.join([*WAYS, KILLED])}")
    whole_s = N_POINTS * bare_s()
    for name in ways or (*WAYS, KILLED):
        try:
            yield _killed(whole_s) if name == KILLED else _row(name, WAYS[name], whole_s)
        except ImportError as error:
            print(f"\n{name}: left out: {error}")


def bare_s() -> float:
    """Return the CPU time of a point without a sweep, the mean over every tenth point."""
    network, samples = load_embedded("fashion_cnn")
    images, calibration = samples[64 : 64 + N_IMAGES], samples[:64]
    chips = [Accelerator.preset("memse").with_set(*_settings(i)) for i in range(0, N_POINTS, N_POINTS // N_BARE)]
    predict(place(network, chips[0], calibration=calibration), images, seed=SEED)  # compiles
    started = time.process_time()
    for chip in chips:
        predict(place(network, chip, calibration=calibration), images, seed=SEED)
    return (time.process_time() - started) / len(chips)


def _settings(i: int) -> tuple[str, str]:
    error_rel = 0.0005 * 4.0 ** ((i // 50) / 19.0)
    return f"cell.programming.error_rel={error_rel!r}", f"mapping.g_used_siemens={10e-6 + 15e-6 * (i % 50) / 49.0!r}"


def _row(name: str, made: Callable[[], Any], whole_s: float) -> Row:
    started, wall = cpu_s(), time.perf_counter()
    with made() as how:
        report = asked(**how)
    used = cpu_s() - started
    return _line(name, report, used, time.perf_counter() - wall, whole_s)


def _line(name: str, report: SweepReport, used_s: float, wall_s: float, whole_s: float) -> Row:
    return {
        "way": name, "points": str(len(report.done)), "cpu_s": f"{used_s:.1f}", "points_per_cpu_s": f"{report.n_computed / used_s:.1f}",
        "efficiency": f"{whole_s / used_s:.3f}", "wall_s": f"{wall_s:.0f}", "counts": report.counts, "answers_sha256": _digest(report)[:16],
    }  # fmt: skip


def _digest(report: SweepReport) -> str:
    return hashlib.sha256(json.dumps([point.answer for point in report.points]).encode()).hexdigest()


def cpu_s() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@contextmanager
def _here() -> Iterator[dict[str, Any]]:
    yield {}


@contextmanager
def _threads() -> Iterator[dict[str, Any]]:
    with ThreadPoolExecutor(N_WORKERS) as executor:
        yield {"executor": executor}


@contextmanager
def _processes() -> Iterator[dict[str, Any]]:
    yield {"workers": N_WORKERS}


@contextmanager
def _loky() -> Iterator[dict[str, Any]]:
    import loky

    executor: Executor = loky.ProcessPoolExecutor(N_WORKERS)
    yield {"executor": executor}
    executor.shutdown(wait=True)


@contextmanager
def _dask() -> Iterator[dict[str, Any]]:
    import dask
    import distributed

    with (
        dask.config.set(QUIET),
        distributed.LocalCluster(n_workers=N_WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield {"executor": client.get_executor(), "workers": N_WORKERS}


WAYS: dict[str, Callable[[], Any]] = {"here": _here, "threads": _threads, "processes": _processes, "loky": _loky, "dask": _dask}
KILLED = "killed"


def _killed(whole_s: float) -> Row:
    """Kill a sweep on processes at about a third, look at what it left, and go on."""
    folder = Path(tempfile.mkdtemp())
    call = f"asked(workers={N_WORKERS}, out={str(folder / 'grid')!r})"
    script = f"from benchmarks.sweeps import asked\nif __name__ == '__main__':\n    {call}\n"
    (folder / "script.py").write_text(script, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    running = subprocess.Popen([sys.executable, str(folder / "script.py")], env=environment)
    while len(list((folder / "grid" / "points").glob("*.json"))) < N_POINTS // 3:
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    started, wall = cpu_s(), time.perf_counter()
    report = asked(workers=N_WORKERS, out=folder / "grid")
    used = cpu_s() - started
    shutil.rmtree(folder)
    rest = whole_s * report.n_computed / N_POINTS
    return _line("killed, then resumed", report, used, time.perf_counter() - wall, rest)
