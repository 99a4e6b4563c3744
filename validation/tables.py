"""The tables that README and docs claim, made by one command; long ones go on where they were interrupted."""

import csv
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelsim.accelerator import Accelerator
from accelsim.placement import place
from accelsim.prediction.predict import predict
from accelsim.report.records import ErrorReport, TrialReport
from accelsim.sampling.monte_carlo import monte_carlo
from validation.networks import network_and_samples

SEED = 20261124
LEVELS = (0.002, 0.01, 0.03, 0.1)
NETWORKS = ("fashion_cnn", "fashion_resnet", "digit_cnn", "resnet8_cifar10")
CLOSURES = ("adjoint", "sketched", "corrected", "auto")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One network of a table: images, noise levels, whether cells clip, and how well Monte-Carlo must know the truth."""

    network: str
    n_images: int = 64
    levels: tuple[float, ...] = LEVELS
    clips: tuple[bool, ...] = (False, True)
    rel_error: float = 0.01
    max_trials: int = 20_000


AGREEMENT = tuple(Study(network=network) for network in NETWORKS)
QUICK = tuple(Study(network=network, levels=(0.002, 0.03), rel_error=0.03) for network in NETWORKS[:2])
DEEP = (
    Study(network="resnet20_cifar10", levels=(0.001, 0.003, 0.01, 0.03, 0.1), rel_error=0.02),
    Study(network="resnet8_cifar10", levels=(0.001, 0.003, 0.01, 0.03, 0.1), rel_error=0.02),
    Study(network="em_unet", n_images=8, levels=(0.001, 0.003, 0.01, 0.03, 0.1), clips=(False,), rel_error=0.03, max_trials=4_000),
    Study(network="mouse_unet", n_images=2, levels=(0.001, 0.01), clips=(False,), rel_error=0.03, max_trials=1_000),
    Study(network="mobilenet_v2", n_images=2, levels=(0.0003, 0.001), clips=(False,), rel_error=0.03, max_trials=1_000),
)
"""Deep networks; few images and levels where a trial takes a quarter of a second. `mobilenet_v2` is at a relative MSE of 0.9 by 0.003."""


def agreement_table(
    *, studies: Sequence[Study] = AGREEMENT, methods: tuple[str, ...] = CLOSURES, done: tuple[str, ...] = ()
) -> Iterator[Row]:
    """Yield predicted over sampled MSE, one row a network, noise level, clipping and method; cells in `done` are skipped."""
    for study in studies:
        cells = [(e, c) for e in study.levels for c in study.clips if _cell(study.network, e, c) not in done]
        if cells:
            network, samples = network_and_samples(study.network, study.n_images)
        for error_rel, clip in cells:
            chip = Accelerator.preset("memse", set=(f"cell.error_rel={error_rel}", f"cell.clip={str(clip).lower()}"))
            plan = place(network, chip, calibration=samples)
            trials = monte_carlo(plan, samples, seed=SEED, rel_error=study.rel_error, max_trials=study.max_trials)
            for method in methods:
                started = time.process_time()
                report = predict(plan, samples, seed=SEED + 1, method=method, attribution=False)  # type: ignore[arg-type]
                yield _row(study.network, error_rel, clip, method, trials, report, time.process_time() - started)


def _row(name: str, error_rel: float, clip: bool, method: str, trials: TrialReport, report: ErrorReport, spent: float) -> Row:
    met = trials.agreement_with(report)
    return {
        "cell": _cell(name, error_rel, clip),
        "network": name,
        "error_rel": error_rel,
        "clip": clip,
        "mse_rel": f"{trials.mse_rel:.4g}",
        "method": method,
        "used": report.method,
        "ratio": f"{met.ratio:.4f}",
        "ci_low": f"{met.ratio_ci[0]:.4f}",
        "ci_high": f"{met.ratio_ci[1]:.4f}",
        "mc_se_rel": f"{trials.mse_se / trials.mse:.4f}",
        "own_estimate": f"{report.rel_error_estimate:.4f}",
        "valid": report.valid,
        "n_trials": trials.n_trials,
        "variance_factor": f"{trials.variance_factor:.3g}",
        "cpu_s": f"{spent:.2f}",
        "mc_cpu_s": f"{trials.cpu_s:.1f}",
    }


def _cell(name: str, error_rel: float, clip: bool) -> str:
    return f"{name} {error_rel} {'clipped' if clip else 'unclipped'}"


def bar_of(mse_rel: float) -> float | None:
    """Return how close the best closure must come at this relative MSE; None where no closure is asked to."""
    for limit, bar in ((0.03, 0.02), (0.1, 0.04), (0.3, 0.06)):
        if mse_rel < limit:
            return bar
    return None


def judged(rows: list[Row], *, tol_rel: float = 0.05) -> dict[str, Any]:
    """Return the verdict on an agreement table: cells beyond the bars, wrong `valid` flags, needless alarms."""
    closure, wrong_valid, alarms, small = [], [], [], 0
    for row in rows:
        error, se = abs(float(row["ratio"]) - 1.0), float(row["mc_se_rel"])
        half = 0.5 * (float(row["ci_high"]) - float(row["ci_low"]))
        valid = str(row["valid"]) == "True"
        bar = bar_of(float(row["mse_rel"]))
        if row["method"] == "sketched" and bar is not None and error > bar + 2.0 * se:
            closure.append(row["cell"])
        if valid and error > tol_rel + half:
            wrong_valid.append(f"{row['cell']} {row['method']}")
        if error < 0.01:
            small += 1
            if not valid:
                alarms.append(f"{row['cell']} {row['method']}")
    return {"beyond_bar": closure, "wrongly_valid": wrong_valid, "needless_alarms": alarms, "n_below_1_percent": small}


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a CSV, as text."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write a CSV under a temporary name and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".csv")
    with os.fdopen(handle, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


def resumed_table(
    path: Path, make: Callable[..., Iterator[Row]], *, tell: Callable[[str], None], n_rows: int | None = None, **options: Any
) -> list[Row]:
    """Make a table into `path`, keeping whole cells (of `n_rows` rows, by default one a method) that are already there; return its rows."""
    rows = read_rows(path) if path.exists() else []
    n_methods = len(options.get("methods", CLOSURES)) if n_rows is None else n_rows
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["cell"]] = counts.get(row["cell"], 0) + 1
    done = tuple(cell for cell, n in counts.items() if n == n_methods)
    rows = [row for row in rows if row["cell"] in done]
    for row in make(done=done, **options):
        rows.append(row)
        write_rows(path, rows)
        tell("  ".join(f"{k}={v}" for k, v in row.items() if k != "cell"))
    return rows
