"""Reports with made-up numbers, for tests of what is done with reports."""

from itertools import product

import numpy as np

from accelsim import Accelerator, Design, DesignReport, ErrorReport, ExploreReport, SweepReport, TrialReport
from accelsim.report.design_report import Baseline
from accelsim.report.explore_report import ExploreTrial
from accelsim.report.origin import Provenance
from accelsim.report.sweep_point import SweepPoint


def provenance(**changes: object) -> Provenance:
    accelerator = Accelerator.preset("memse")
    fields = {
        "seed": 7, "network": "made_up", "network_digest": "a" * 64, "spec_digest": accelerator.digest, "spec_toml": accelerator.to_toml(),
        "samples_digest": "b" * 64, "output": "fc2", "reference": "float", "warnings": ("x was converted from float64 to float32",),
    }  # fmt: skip
    return Provenance(**(fields | changes))  # type: ignore[arg-type]


def error_report(**changes: object) -> ErrorReport:
    fields = {
        "provenance": provenance(), "mse": 0.0123, "mse_rel": 0.004, "bias2": 0.0003, "variance": 0.012,
        "by_layer": {"conv1": 0.002, "features.3": 0.007, "fc2": 0.003, "interaction": 0.0003},
        "by_cause": {"programming": 0.0118, "read noise": 0.0005}, "by_output": np.array([0.01, 0.0146]),
        "method": "sketched", "reason": "small enough", "rel_error_estimate": 0.012, "tol_rel": 0.05, "mse_se": 0.0001,
        "mse_chip_sd": 0.003, "read_power_w": 1.2e-3, "power_by_component": {"memristors": 1.2e-3, "amplifiers": 0.0},
        "power_by_layer": {"conv1": 2e-4, "features.3": 9e-4, "fc2": 1e-4}, "accuracy_clean": 0.93, "accuracy_quantized": 0.93,
        "accuracy_predicted": 0.921, "n_inputs": 64, "elapsed_s": 1.5, "meaning": ("programming error 0.01 of 25 uS = 250 nS",),
        "details": {"rank": 3.0},
    }  # fmt: skip
    return ErrorReport(**(fields | changes))  # type: ignore[arg-type]


def trial_report(**changes: object) -> TrialReport:
    losses = np.random.default_rng(3).gamma(16.0, 0.0125 / 16.0, 400)
    fields = {
        "provenance": provenance(), "mse": 0.0125, "ci_low": 0.01244, "ci_high": 0.01256, "mse_se": 0.00003, "mse_rel": 0.0041,
        "confidence": 0.95, "n_trials": 400, "stopped_by": "rel_error", "variance_factor": 11.0, "control_variate": "on",
        "accuracy": 0.92, "accuracy_ci": (0.9, 0.94), "mse_chip_sd": float(losses.std()),
        "mse_chip_quantiles": {q: float(np.quantile(losses, float(q))) for q in ("0.05", "0.25", "0.5", "0.75", "0.95")},
        "read_power_w": 1.2e-3, "n_inputs": 64, "losses": losses, "elapsed_s": 12.0, "cpu_s": 20.0,
    }  # fmt: skip
    return TrialReport(**(fields | changes))  # type: ignore[arg-type]


def design_report(**changes: object) -> DesignReport:
    power = np.geomspace(3e-4, 1.2e-3, 41)
    fields = {
        "provenance": provenance(), "feasible": True,
        "design": Design(g_used_siemens={"conv1": 2.5e-5, "features.3": 1.1e-5, "fc2": 8e-6}),
        "per": "layer", "power_budget_w": 7e-4, "mse_budget": None, "yield_p": None, "mse": 2.4e-5 / 7e-4,
        "mse_verify": 0.034, "mse_verify_rel_error": 0.021, "read_power_verify_w": 7.2e-4,
        "read_power_w": 7e-4, "controllable_power_w": 7e-4,
        "baseline": Baseline(mse=0.047, read_power_w=7e-4, g_used_siemens=1.5e-5, power_at_same_mse_w=9e-4),
        "saving_total_rel": 0.22, "saving_controllable_rel": 0.22, "multiplier": 3.0, "duality_gap": 1e-12,
        "n_at_upper_bound": 1, "n_at_lower_bound": 0, "n_refresh": 2,
        "pareto": tuple({"read_power_w": float(p), "mse": float(2.4e-5 / p)} for p in power), "mc": trial_report(), "yield_sampled_p": None,
        "floor": None, "gap": None, "levers": (), "notes": ("a note",), "n_inputs": 64, "elapsed_s": 3.0,
    }  # fmt: skip
    return DesignReport(**(fields | changes))  # type: ignore[arg-type]


def sweep_report(**changes: object) -> SweepReport:
    """A grid of 3 x 2 predictions, mse_rel = 4 a + b, of which one failed and one is missing unless `whole`."""
    whole = changes.pop("whole", False)
    axes = {"cell.programming.error_rel": [0.01, 0.02, 0.03], "mapping.levels": [16, None]}
    points = []
    for i, (error_rel, levels) in enumerate(product(*axes.values())):
        answer = {"mse_rel": 4.0 * error_rel + (0.02 if levels else 0.0), "accuracy_predicted": 0.9 - error_rel, "read_power_w": 1e-5}
        status = "done" if whole else {1: "failed", 5: "missing"}.get(i, "done")
        error = "mapping.levels: <b>none</b> of these" if status == "failed" else ""
        values = {"cell.programming.error_rel": error_rel, "mapping.levels": levels}
        points.append(SweepPoint(
            key=f"{i:064x}", values=values, status=status, answer=answer if status == "done" else {}, error=error, elapsed_s=0.1
        ))  # fmt: skip
    fields = {
        "provenance": provenance(), "run": "predict", "options": {"method": "adjoint"}, "axes": axes, "layout": "grid",
        "points": tuple(points), "n_computed": 4, "n_reused": 0, "stopped_by": "end", "elapsed_s": 1.0,
    }  # fmt: skip
    return SweepReport(**(fields | changes))  # type: ignore[arg-type]


def explore_report(**changes: object) -> ExploreReport:
    """A search of six trials over one range and a choice, of which the last failed."""
    error_rel = [0.002, 0.004, 0.006, 0.008, 0.01]
    trials = [
        ExploreTrial(
            number=i, values={"cell.programming.error_rel": e, "mapping.levels": 16 * (1 + i % 2)}, status="done",
            objectives={"error": e, "power": 1e-8 / e}, feasible=e <= 0.008, design_toml="", error="",
        )
        for i, e in enumerate(error_rel)
    ]  # fmt: skip
    trials.append(ExploreTrial(
        number=5, values={"cell.programming.error_rel": 0.02, "mapping.levels": 16}, status="failed", objectives={}, feasible=False,
        design_toml="", error="too <large>",
    ))  # fmt: skip
    fields = {
        "provenance": provenance(), "objectives": {"error": "minimize", "power": "minimize"}, "constraints": ("error <= 0.008",),
        "space": {"cell.programming.error_rel": [0.002, 0.02], "mapping.levels": [16, 32]}, "scales": "layer", "sampler": "tpe",
        "trials": tuple(trials), "n_computed": 6, "n_reused": 0, "stopped_by": "end", "notes": (), "elapsed_s": 1.0,
    }  # fmt: skip
    return ExploreReport(**(fields | changes))  # type: ignore[arg-type]
