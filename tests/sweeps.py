"""Small sweeps for tests: the digits network, two axes, six points."""

from collections.abc import Callable
from typing import Any

from accelsim import Accelerator, Plan, Samples, SweepReport, sweep
from tests.digits import digits_network, digits_samples

AXES = {"cell.error_rel": [0.002, 0.005, 0.01], "mapping.g_used_siemens": ["12.5 uS", "25 uS"]}
OPTIONS = {"method": "adjoint"}


def small_sweep(**changes: Any) -> SweepReport:
    """Return a sweep of six predictions, changed."""
    given: dict[str, Any] = {"seed": 7, "axes": AXES, "options": OPTIONS, "calibration": digits_samples()[100:164]} | changes
    return sweep(digits_network("mlp"), Accelerator.preset("memse"), digits_samples()[:8], **given)


def answers(report: SweepReport) -> list[dict[str, Any]]:
    """Return what each point answered."""
    return [point.answer for point in report.points]


def counted(plan: Plan, samples: Samples, *, seed: int, path: str, sleep_s: float = 0.0) -> dict[str, float]:
    """Append a line to a file, so that runs can be counted, and answer something of the plan."""
    import time

    time.sleep(sleep_s)
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{plan.accelerator.digest}\n")
    return {"g_used_siemens": float(plan.layers[0].site.g_used_siemens.max()), "n_images": len(samples), "seed": seed}


def deadly(plan: Plan, samples: Samples, *, seed: int, path: str | None = None) -> dict[str, float]:
    """End the process where an error is large; otherwise append a line to a file, if one is given."""
    import os

    error_rel = float(plan.accelerator.to_table()["cell"]["programming"]["error_rel"])
    if error_rel > 0.008:
        os._exit(9)
    if path is not None:
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{error_rel}\n")
    return {"error_rel": error_rel}


def wrong_at(plan: Plan, samples: Samples, *, seed: int) -> dict[str, float]:
    """Divide by zero at one point."""
    error_rel = float(plan.accelerator.to_table()["cell"]["programming"]["error_rel"])
    return {"value": 1.0 / (error_rel - 0.005)}


Function = Callable[..., dict[str, float]]
