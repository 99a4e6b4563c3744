"""Sweeps, checkpoints and optimizations killed at random moments: they go on, lose at most one point or block, and leave no broken file."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from accelsim import load_report
from accelsim.report.sweep_folder import read_point
from accelsim.sampling.control import BLOCK
from tests.crash_programs import N_POINTS, RUNS

ROOT = Path(__file__).parents[1]


def _lines(path: Path) -> int:
    return len(path.read_text().split()) if path.exists() else 0


def _start(what: str, folder: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.crash_programs", what, str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _killed(what: str, folder: Path, after_s: float) -> bool:
    """Kill a run some time after it began to work; return whether it was still running."""
    begun = _lines(folder / "begun")
    running = _start(what, folder)
    while _lines(folder / "begun") == begun:
        assert running.poll() is None, running.stderr and running.stderr.read()
        time.sleep(0.005)
    time.sleep(after_s)
    running.kill()
    return running.wait() != 0


def _points(folder: Path) -> int:
    """Return how many points are kept; every file among them is whole."""
    return len([read_point(path) for path in (folder / "grid" / "points").glob("*.json")])


def _trials(folder: Path) -> int:
    """Return how many trials are kept; the checkpoint is whole."""
    path = folder / "trials.npz"
    if not path.exists():
        return 0
    with np.load(path, allow_pickle=False) as stored:
        lengths = {len(stored[name]) for name in ("losses", "controls", "powers", "n_correct")}
    assert len(lengths) == 1
    return lengths.pop()


def _crash(what: str, folder: Path, *, n_kills: int, span_s: float, seed: int) -> None:
    """Kill a run again and again, looking at what it left each time, and let the last one end."""
    moments = random.Random(seed)
    (folder / "whole").mkdir(parents=True)
    (folder / "killed").mkdir()
    whole = json.loads(json.dumps(RUNS[what](folder / "whole")))
    place, n_killed = folder / "killed", 0
    for _ in range(n_kills):
        before = _points(place) if what == "sweep" else _trials(place)
        n_killed += _killed(what, place, span_s * moments.random())
        kept = _points(place) if what == "sweep" else _trials(place)
        assert kept >= before
        if what == "sweep":
            assert kept >= _lines(place / "kept")
            assert _lines(place / "computed") <= kept + n_killed  # at most the point it was at was lost each time
        else:
            assert kept <= BLOCK * (_lines(place / "kept") + n_killed)  # a block is kept whole, or was lost
        if (place / "run").exists():
            load_report(place / "run")  # there is a whole run folder or none
        if (place / "answer.json").exists():
            assert json.loads((place / "answer.json").read_text()) == whole
            _begin_again(place)
    last = _start(what, place)
    assert last.wait() == 0, last.stderr and last.stderr.read()
    assert json.loads((place / "answer.json").read_text()) == whole
    if what == "sweep":
        assert _points(place) == N_POINTS
    assert n_killed > 0


def _begin_again(place: Path) -> None:
    """Empty the folder of a run that came to its end before it was killed."""
    import shutil

    shutil.rmtree(place)
    place.mkdir()


@pytest.mark.parametrize(("what", "n_kills"), [("sweep", 2), ("trials", 2), ("optimize", 1)])
def test_a_run_that_is_killed_goes_on(tmp_path: Path, what: str, n_kills: int) -> None:
    _crash(what, tmp_path, n_kills=n_kills, span_s=0.6, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize(("what", "n_kills"), [("sweep", 40), ("trials", 40), ("optimize", 20)])
def test_a_run_that_is_killed_a_hundred_times_goes_on(tmp_path: Path, what: str, n_kills: int) -> None:
    _crash(what, tmp_path, n_kills=n_kills, span_s=2.0, seed=11)


def test_a_file_that_was_half_written_would_be_noticed(tmp_path: Path) -> None:
    """The control: cut files are what these tests look for."""
    from accelsim import RunFolderError

    (tmp_path / "grid" / "points").mkdir(parents=True)
    (tmp_path / "grid" / "points" / f"{'a' * 64}.json").write_text('{"schema": 1, "po')
    with pytest.raises(RunFolderError, match="is damaged"):
        _points(tmp_path)
    np.savez(tmp_path / "trials.npz", losses=np.zeros(9))
    (tmp_path / "trials.npz").write_bytes((tmp_path / "trials.npz").read_bytes()[:90])
    with pytest.raises(Exception, match=r"zip|File"):
        _trials(tmp_path)
    assert set(RUNS) == {"sweep", "trials", "optimize"}
