"""The tables that README and docs claim, made by one command; long ones go on where they were interrupted."""

import csv
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from accelsim.accelerator import Accelerator
from accelsim.placement import place
from accelsim.prediction.predict import predict
from accelsim.sampling.monte_carlo import monte_carlo
from validation.networks import network_and_samples

SEED = 20261124
LEVELS = (0.002, 0.01, 0.03, 0.1)
NETWORKS = ("fashion_cnn", "fashion_resnet", "digit_cnn", "resnet8_cifar10")
CLOSURES = ("adjoint", "sketched", "corrected", "auto")
Row = dict[str, Any]


def agreement_table(
    *,
    networks: tuple[str, ...] = NETWORKS,
    levels: tuple[float, ...] = LEVELS,
    n_images: int = 64,
    rel_error: float = 0.01,
    max_trials: int = 20_000,
    methods: tuple[str, ...] = CLOSURES,
    done: tuple[str, ...] = (),
) -> Iterator[Row]:
    """Yield predicted over sampled MSE, one row a network, noise level, clipping and method; cells in `done` are skipped."""
    for name in networks:
        if all(_cell(name, e, c) in done for e in levels for c in (False, True)):
            continue
        network, samples = network_and_samples(name, n_images)
        for error_rel in levels:
            for clip in (False, True):
                if _cell(name, error_rel, clip) in done:
                    continue
                chip = Accelerator.preset("memse", set=(f"cell.error_rel={error_rel}", f"cell.clip={str(clip).lower()}"))
                plan = place(network, chip, calibration=samples)
                trials = monte_carlo(plan, samples, seed=SEED, rel_error=rel_error, max_trials=max_trials)
                for method in methods:
                    started = time.process_time()
                    report = predict(plan, samples, seed=SEED + 1, method=method)  # type: ignore[arg-type]
                    spent = time.process_time() - started
                    met = trials.agreement_with(report)
                    yield {
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


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write a CSV under a temporary name and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".csv")
    with os.fdopen(handle, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


def resumed_table(path: Path, make: Callable[..., Iterator[Row]], *, tell: Callable[[str], None], **options: Any) -> list[Row]:
    """Make a table into `path`, keeping whole cells that are already there, and return its rows."""
    rows: list[Row] = list(csv.DictReader(path.open())) if path.exists() else []
    n_methods = len(options.get("methods", CLOSURES))
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
