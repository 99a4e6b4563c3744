"""Executors: the same bits on all of them, inputs sent about once a worker, and workers that die lose nothing."""

import os
import pickle
import platform
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from accelsim import Accelerator, AccelsimError, place, predict
from accelsim.sweeping import worker
from accelsim.sweeping.execute import run_on, workers_of
from accelsim.sweeping.worker import Inputs, Reply, Task
from tests.digits import digits_network, digits_samples
from tests.sweeps import answers, counted, deadly, small_sweep

ROOT = Path(__file__).parents[1]
HERE = {"axes": {"cell.error_rel": [0.002, 0.005, 0.01], "mapping.g_used_siemens": ["12.5 uS", "25 uS"]}}


@pytest.fixture(scope="module")
def spawned() -> Any:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        yield executor


@pytest.fixture(scope="module")
def cluster() -> Any:
    distributed = pytest.importorskip("distributed", reason="needs the extra `cluster`: pip install -e '.[test,cluster]'")
    dask = pytest.importorskip("dask")
    with (
        dask.config.set({"distributed.worker.daemon": True, "distributed.comm.timeouts.connect": "60s"}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True) as made,
        distributed.Client(made) as client,
    ):
        yield client


# the same bits


@pytest.mark.parametrize("run", ["predict", "monte_carlo"])
def test_threads_and_spawned_processes_give_the_bits_of_one_thread(spawned: Executor, run: str) -> None:
    options = {"method": "sketched"} if run == "predict" else {"max_trials": 40}
    alone = answers(small_sweep(run=run, options=options))
    assert answers(small_sweep(run=run, options=options, executor=spawned)) == alone
    with ThreadPoolExecutor(3) as threads:
        assert answers(small_sweep(run=run, options=options, executor=threads)) == alone


def test_workers_of_our_own_give_the_same_bits_and_are_gone_afterwards() -> None:
    before = _children()
    assert answers(small_sweep(workers=2)) == answers(small_sweep())
    assert _children() == before


@pytest.mark.extras
def test_loky_gives_the_same_bits() -> None:
    loky = pytest.importorskip("loky", reason="needs loky: pip install -c constraints.txt loky")
    executor = loky.ProcessPoolExecutor(max_workers=2)
    try:
        assert answers(small_sweep(executor=executor)) == answers(small_sweep())
    finally:
        executor.shutdown(kill_workers=True)


@pytest.mark.extras
def test_dask_gives_the_same_bits(cluster: Any) -> None:
    assert answers(small_sweep(executor=cluster.get_executor(), workers=2)) == answers(small_sweep())


def test_plans_and_reports_pickle() -> None:
    plan = place(digits_network("cnn"), Accelerator.preset("isaac"), calibration=digits_samples()[:8])
    plan = pickle.loads(pickle.dumps(plan))
    report = predict(plan, digits_samples()[:2], seed=7, method="adjoint")
    assert pickle.loads(pickle.dumps(report)).to_json_dict() == report.to_json_dict()
    sweep = small_sweep()
    assert pickle.loads(pickle.dumps(sweep)).to_json_dict() == sweep.to_json_dict()


# inputs


class _Machines(Executor):
    """Stands in for a cluster: each of `n` workers has a memory of its own, and everything it is sent is counted."""

    def __init__(self, n: int) -> None:
        self.memories: list[dict[str, Inputs]] = [{} for _ in range(n)]
        self.sent: list[bool] = []
        self.turn = 0

    def submit(self, function: Any, /, *given: Any, **named: Any) -> Future[Any]:
        """Run at once, on the next machine."""
        task, packed = given
        self.sent.append(packed is not None)
        self.turn = (self.turn + 1) % len(self.memories)
        held, worker._held = worker._held, self.memories[self.turn]
        try:
            reply: Reply = function(*pickle.loads(pickle.dumps((task, packed))))
        finally:
            worker._held = held
        future: Future[Any] = Future()
        future.set_result(Reply(worker=str(self.turn), known=reply.known))
        return future


def test_inputs_are_sent_about_once_a_worker() -> None:
    machines = _Machines(3)
    axes = {"cell.error_rel": [0.001 * i for i in range(1, 13)]}
    report = small_sweep(executor=machines, workers=3, axes=axes)
    assert answers(report) == answers(small_sweep(axes=axes))
    assert 3 <= sum(machines.sent) <= 6
    assert [len(memory) for memory in machines.memories] == [1, 1, 1]


class _Unlucky(Executor):
    """Stands in for a scheduler that hands the first inputs to a worker which is busy for as long as the other has answered nothing."""

    def __init__(self) -> None:
        self.machine = _Machines(1)
        self.busy: list[tuple[Future[Any], tuple[Any, ...]]] = []

    def submit(self, function: Any, /, *given: Any, **named: Any) -> Future[Any]:
        """Keep the first task with inputs; run the others, and then that one, at once."""
        assert len(self.machine.sent) < 40, "tasks go to and fro for ever"
        if given[1] is not None and not self.busy:
            self.busy.append((Future(), given))
            return self.busy[0][0]
        future = self.machine.submit(function, *given)
        if future.result().known is not None and not self.busy[0][0].done():
            late, what = self.busy[0]
            late.set_result(self.machine.submit(function, *what).result())
        return future


def test_points_do_not_bounce_for_as_long_as_the_inputs_are_with_a_busy_worker() -> None:
    unlucky = _Unlucky()
    assert answers(small_sweep(executor=unlucky, workers=2)) == answers(small_sweep())
    assert unlucky.machine.sent.count(False) <= 2 * 6 + 6


def test_a_task_is_small_beside_the_inputs() -> None:
    inputs = Inputs(digits_network("cnn"), digits_samples(), digits_samples(), "predict", {})
    task = Task(key="k" * 64, inputs_key="i" * 64, accelerator=Accelerator.preset("memse"), seed=7, options={})
    assert len(pickle.dumps(task)) < 4096 < len(inputs.packed())


def test_a_worker_calibrates_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    calibrated = worker.calibrated
    monkeypatch.setattr(worker, "calibrated", lambda *given: calls.append(1) or calibrated(*given))  # type: ignore[func-returns-value]
    small_sweep()
    assert len(calls) == 1


def test_the_number_of_workers_is_that_of_the_executor(spawned: Executor) -> None:
    with ThreadPoolExecutor(3) as threads:
        assert (workers_of(threads, None), workers_of(spawned, None), workers_of(threads, 5)) == (3, 2, 5)
    assert workers_of(_Machines(1), None) == 32


# memory

FAULTS = """
import resource
import numpy as np
from accelsim import Accelerator
from accelsim.sweeping.worker import Inputs, Task, compute
packed = Inputs(None, None, None, "predict", {}).packed()
task = Task(key="k", inputs_key="i", accelerator=Accelerator.preset("memse"), seed=7, options={})
assert "NoneType" in compute([task], packed).known[0].error
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    np.ones(1 << 17)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc reads MALLOC_TRIM_THRESHOLD_")
def test_memory_of_a_worker_that_dask_started_is_not_mapped_anew_for_each_array() -> None:
    assert _faults("65536") < 2_000
    assert _faults("65537") >= 100 * (1 << 20) // os.sysconf("SC_PAGE_SIZE") // 2  # the control: another value is someone's choice


def _faults(trim_threshold: str) -> int:
    """Return how many pages a worker was given for a hundred arrays of a megabyte, one after another."""
    environment = _environment() | {"MALLOC_TRIM_THRESHOLD_": trim_threshold, "OPENBLAS_NUM_THREADS": "1"}
    return int(subprocess.run([sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True).stdout)


# workers that die


def test_a_point_that_ends_its_worker_is_recorded_and_the_others_are_computed() -> None:
    axes = {"cell.error_rel": [0.001, 0.002, 0.009, 0.003, 0.004, 0.005]}
    report = small_sweep(run=deadly, options={}, axes=axes, workers=2)
    assert [p.status for p in report.points] == ["done", "done", "failed", "done", "done", "done"]
    assert "it died while it computed this: killed, or out of memory" in report.failed[0].error


def test_an_executor_that_breaks_says_how_to_go_on_and_loses_nothing(tmp_path: Path) -> None:
    """Which points came before the deadly one is the executor's; all that were computed are kept, and none is computed again."""
    computed = tmp_path / "computed"
    computed.touch()
    given: dict[str, Any] = {
        "run": deadly, "options": {"path": str(computed)}, "axes": {"cell.error_rel": [0.001, 0.009, 0.002]}, "out": tmp_path / "grid",
    }  # fmt: skip
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor,
        pytest.raises(AccelsimError, match=r"the executor's workers died .* run the same sweep again"),
    ):
        small_sweep(executor=executor, **given)
    before = len(computed.read_text().splitlines())
    assert len(list((tmp_path / "grid" / "points").glob("*.json"))) == before
    again = small_sweep(workers=1, **given)
    assert (again.n_reused, again.n_computed) == (before, 3 - before)
    assert [p.status for p in again.points] == ["done", "failed", "done"]
    assert len(computed.read_text().splitlines()) == 2


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from tests.sweeps import small_sweep\nsmall_sweep(workers=1)\n")
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, cwd=ROOT, env=_environment())
    assert 'under `if __name__ == "__main__":`' in ended.stderr.splitlines()[-1]


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = (
        "from tests.sweeps import small_sweep, counted\n"
        f"small_sweep(run=counted, options={{'path': {str(log)!r}, 'sleep_s': 0.5}}, workers=2)\n"
    )
    script = tmp_path / "script.py"
    script.write_text("if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in code.splitlines()))
    parent = subprocess.Popen([sys.executable, str(script)], cwd=ROOT, env=_environment())
    _wait_for(log.exists)
    workers = _children(parent.pid)
    assert len(workers) >= 2
    parent.kill()
    parent.wait()
    _wait_for(lambda: not any(_is_alive(pid) for pid in workers))


@pytest.mark.extras
def test_a_dask_worker_that_is_killed_loses_nothing(cluster: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    pids = list(cluster.run(os.getpid).values())
    axes = {"cell.error_rel": [0.001 * i for i in range(1, 13)]}

    def kill_one() -> None:
        _wait_for(lambda: len(log.read_text().splitlines()) >= 3)
        os.kill(pids[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    given: dict[str, Any] = {"run": counted, "axes": axes, "out": tmp_path / "grid"}
    report = small_sweep(**given, options={"path": str(log), "sleep_s": 0.2}, executor=cluster.get_executor(), workers=2)
    killer.join()
    assert not _is_alive(pids[0])
    assert report.counts == "12 computed, 0 reused"
    expected = small_sweep(run=counted, axes=axes, options={"path": str(tmp_path / "other")})
    assert answers(report) == answers(expected)


def test_run_on_stops_when_an_answer_cannot_be_kept() -> None:
    def full(known: object) -> None:
        raise OSError("no space left")

    inputs = Inputs(digits_network("mlp"), digits_samples()[:2], digits_samples()[:2], "predict", {"method": "adjoint"})
    worker.hold("i", inputs)
    tasks = [Task(key=str(i), inputs_key="i", accelerator=Accelerator.preset("memse"), seed=7, options={}) for i in range(3)]
    with ThreadPoolExecutor(1) as threads, pytest.raises(OSError, match="no space left"):
        run_on(threads, tasks, inputs, full, n_workers=None)
    worker.let_go("i")


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def _children(pid: int | None = None) -> list[int]:
    """Return the processes that were spawned to compute (not the one that tracks resources)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            command = path.with_name("cmdline").read_text()
        except OSError:
            continue
        if int(parent) == (pid or os.getpid()) and state != "Z" and "spawn_main" in command:
            found.append(int(path.parent.name))
    return found


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_for(true: Any, timeout_s: float = 120.0) -> None:
    ends = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < ends, "it did not come to pass"
        time.sleep(0.05)
