"""What the crash tests run and kill: `python -m tests.crash_programs sweep|trials|optimize FOLDER`."""

import json
import sys
from pathlib import Path
from typing import Any

from accelsim import monte_carlo, optimize
from accelsim.report.files import write_whole
from accelsim.report.run_folder import save_report
from accelsim.sampling import monte_carlo as sampling
from accelsim.sampling.record import Record
from tests.digits import digits_plan, judged
from tests.sweeps import counted, small_sweep

N_POINTS = 12
AXES = {"cell.error_rel": [0.001 * i for i in range(1, N_POINTS + 1)]}


def run_sweep(folder: Path) -> Any:
    """Sweep twelve points, each of which leaves a line in `computed` when it begins to be kept."""
    options = {"path": str(folder / "computed"), "sleep_s": 0.03}
    report = small_sweep(run=counted, axes=AXES, options=options, out=folder / "grid", progress=lambda *news: _tell(folder, "kept"))
    return [[point.values, point.answer] for point in report.points]


def run_trials(folder: Path) -> Any:
    """Sample 240 trials into a checkpoint."""
    trials = monte_carlo(
        digits_plan("mlp"), judged(), seed=3, rel_error=1e-6, max_trials=240, threads=1, checkpoint=folder / "trials.npz"
    )
    return trials.losses.tolist()


def run_optimize(folder: Path) -> Any:
    """Optimize with a checkpoint for Monte-Carlo's check, and save the run."""
    report = optimize(
        digits_plan("mlp"), judged(), seed=3, power_budget_w=5e-5, mc_rel_error=1e-6, mc_max_trials=240, threads=1,
        checkpoint=folder / "trials.npz",
    )  # fmt: skip
    if not (folder / "run").exists():  # killed between the two
        save_report(report, folder / "run")
    assert report.mc is not None
    return [report.mse, report.mc.losses.tolist()]


def _tell(folder: Path, what: str) -> None:
    with (folder / what).open("a", encoding="utf-8") as file:
        file.write(".\n")


RUNS = {"sweep": run_sweep, "trials": run_trials, "optimize": run_optimize}


def main(what: str, folder: Path) -> None:
    """Run to the end, and leave the answer in `answer.json`; tell of every block of trials that was kept."""
    save = sampling.save_trials

    def told(path: str | Path, record: Record, *, key: str) -> None:
        save(path, record, key=key)
        _tell(folder, "kept")

    sampling.save_trials = told  # type: ignore[assignment]
    _tell(folder, "begun")
    found = RUNS[what](folder)
    write_whole(folder / "answer.json", json.dumps(found).encode())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
