"""Blocks of points: a few tasks for many cheap points, neighbours of a point that fails, a time that is kept, and what a kill loses."""

import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from accelsim import Accelerator
from accelsim.sweeping import worker
from accelsim.sweeping.blocks import BLOCK_S, BlockSize
from accelsim.sweeping.worker import Inputs, Task, compute
from tests.digits import digits_network, digits_samples
from tests.sweeps import answers, counted, deadly, small_sweep, wrong_at

ROOT = Path(__file__).parents[1]
MANY = {"cell.error_rel": [0.0005 * i for i in range(1, 65)]}


class _Far(Executor):
    """Stands in for a worker that is far away: what it is sent is pickled; a block with `bad` in it is answered by an error."""

    def __init__(self, *, bad: float | None = None) -> None:
        self.blocks: list[int] = []
        self.bad = bad

    def submit(self, function: Any, /, *given: Any, **named: Any) -> Future[Any]:
        """Run at once."""
        block, packed = pickle.loads(pickle.dumps(given))
        self.blocks.append(len(block))
        future: Future[Any] = Future()
        if any(task.accelerator.to_table()["cell"]["programming"]["error_rel"] == self.bad for task in block):
            future.set_exception(RuntimeError("the worker was lost four times"))
        else:
            future.set_result(function(block, packed))
        return future


# sizes


def test_a_block_grows_to_its_time_at_most_doubling_and_shrinks_at_once() -> None:
    size, sizes = BlockSize(), []
    for _ in range(7):
        sizes.append(size.of(10_000, n_blocks=4))
        size.take(sizes[-1], sizes[-1] * BLOCK_S / 40.5)
    assert sizes == [1, 2, 4, 8, 16, 32, 40]
    size.take(40, 40 * BLOCK_S / 3.5)
    assert size.of(10_000, n_blocks=4) == 3
    size.take(1, 100 * BLOCK_S)
    assert size.of(10_000, n_blocks=4) == 1


def test_blocks_get_smaller_towards_the_end_so_that_all_workers_are_busy() -> None:
    size, left, sizes = BlockSize(), 200, []
    size.n_points = 40
    while left:
        sizes.append(size.of(left, n_blocks=4))
        left -= sizes[-1]
    assert sizes[:3] == [40, 40, 30]
    assert sizes[-4:] == [1, 1, 1, 1]
    assert sizes == sorted(sizes, reverse=True)


def test_many_cheap_points_are_few_tasks_and_the_same_bits_with_progress_for_each() -> None:
    seen: list[int] = []
    far = _Far()
    report = small_sweep(axes=MANY, executor=far, workers=1, progress=lambda n, *_: seen.append(n))
    assert answers(report) == answers(small_sweep(axes=MANY))
    assert sum(far.blocks) >= 64
    assert len(far.blocks) < 32
    assert max(far.blocks) >= 8
    assert seen == list(range(1, 65))


def test_threads_of_this_process_take_points_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    with ThreadPoolExecutor(2) as threads:
        submit = threads.submit
        monkeypatch.setattr(threads, "submit", lambda *given: sizes.append(len(given[1])) or submit(*given))  # type: ignore[func-returns-value]
        small_sweep(executor=threads)
    assert sizes == [1] * 6


def test_points_that_take_long_are_sent_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = _Far()
    monkeypatch.setattr("accelsim.sweeping.blocks.BLOCK_S", 1e-4)
    small_sweep(run=counted, options={"path": str(tmp_path / "log"), "sleep_s": 0.001}, axes=MANY, executor=far, workers=1)
    assert set(far.blocks) == {1}


# what goes wrong in a block


def test_a_worker_stops_when_the_time_of_its_block_is_over_and_the_rest_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "BLOCK_S", 0.0)
    log = tmp_path / "log"
    far = _Far()
    report = small_sweep(run=counted, options={"path": str(log)}, axes=MANY, executor=far, workers=1)
    assert report.counts == "64 computed, 0 reused"
    assert len(log.read_text().splitlines()) == 64
    assert max(far.blocks) > 1


def test_a_point_that_fails_leaves_its_neighbours_in_the_block_alone() -> None:
    inputs = Inputs(digits_network("mlp"), digits_samples()[:8], digits_samples()[100:164], wrong_at, {})
    chips = [Accelerator.preset("memse").with_set(f"cell.error_rel={error}") for error in (0.002, 0.005, 0.01)]
    block = [Task(key=str(i), inputs_key="neighbours", accelerator=chip, seed=7, options={}) for i, chip in enumerate(chips)]
    known = compute(block, inputs.packed()).known
    worker.let_go("neighbours")
    assert known is not None
    assert [one.fault for one in known] == ["", "broke", ""]
    assert "ZeroDivisionError" in known[1].error


def test_a_block_without_an_answer_is_tried_point_by_point() -> None:
    bad = MANY["cell.error_rel"][40]
    far = _Far(bad=bad)
    report = small_sweep(axes=MANY, executor=far, workers=1)
    assert [point.values["cell.error_rel"] for point in report.failed] == [bad]
    assert "no answer from a worker: RuntimeError: the worker was lost four times" in report.failed[0].error
    assert len(report.done) == 63


def test_a_point_that_ends_its_worker_fails_alone_of_its_block(tmp_path: Path) -> None:
    log = tmp_path / "log"
    axes = {"cell.error_rel": [1e-4 * i for i in range(1, 41)] + [0.009] + [1e-4 * i for i in range(41, 61)]}
    report = small_sweep(run=deadly, options={"path": str(log)}, axes=axes, workers=1)
    assert [point.values["cell.error_rel"] for point in report.failed] == [0.009]
    assert len(report.done) == 60
    assert len(log.read_text().splitlines()) > 60, "the deadly point was in no block, so this shows nothing"


@pytest.mark.slow
def test_a_kill_loses_at_most_a_block_of_each_worker(tmp_path: Path) -> None:
    log, sleep_s = tmp_path / "log", 0.05
    options, out = {"path": str(log), "sleep_s": sleep_s}, str(tmp_path / "grid")
    script = tmp_path / "script.py"
    script.write_text(
        "from tests.sweeps import small_sweep, counted\nMANY_MORE = {'cell.error_rel': [5e-5 * i for i in range(1, 401)]}\n"
        f"if __name__ == '__main__':\n    small_sweep(run=counted, options={options!r}, axes=MANY_MORE, out={out!r}, workers=2)\n"
    )
    running = subprocess.Popen([sys.executable, str(script)], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    ends = time.monotonic() + 120.0
    while not (log.exists() and len(log.read_text().splitlines()) >= 200):
        assert time.monotonic() < ends
        time.sleep(0.02)
    running.kill()
    running.wait()
    time.sleep(1.0)
    n_begun, n_kept = len(log.read_text().splitlines()), len(list((tmp_path / "grid" / "points").glob("*.json")))
    assert 0 <= n_begun - n_kept <= 2 * (BLOCK_S / sleep_s + 1) + 2
    assert n_kept >= 100
