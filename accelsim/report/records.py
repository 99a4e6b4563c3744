"""The answers: predicted error, sampled error, and whether they agree."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from accelsim.report.base import Report, columns_table
from accelsim.report.origin import Provenance
from devices.base.quantity import format_quantity, percent
from workloads.operators.base import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INTERACTION = "interaction"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ErrorReport(Report):
    """The predicted error of a plan on samples.

    Parameters
    ----------
    mse
        Mean over images and outputs of the squared output error, `bias2 + variance`.
    mse_rel
        `mse` over the variance of the clean outputs, pooled over images and outputs.
    by_layer, by_cause
        MSE with only that source on, and their `interaction`: each dict sums to `mse`.
    by_output
        MSE of each output, `(n_out,)`, or None with random probes.
    rel_error_estimate
        The method's own estimate of its relative error, from the data; `valid` is whether it is at most `tol_rel`.
    mse_se
        Standard error of `mse` for random methods, 0 for exact ones.
    mse_chip_sd
        Standard deviation of the MSE over chips, None where it is not known.
    """

    kind: ClassVar[str] = "predict"
    provenance: Provenance
    mse: float
    mse_rel: float
    bias2: float
    variance: float
    by_layer: dict[str, float]
    by_cause: dict[str, float]
    by_output: Array | None
    method: str
    reason: str
    rel_error_estimate: float
    tol_rel: float
    mse_se: float
    mse_chip_sd: float | None
    read_power_w: float
    power_by_component: dict[str, float]
    power_by_layer: dict[str, float]
    accuracy_clean: float | None
    accuracy_quantized: float | None
    accuracy_predicted: float | None
    n_inputs: int
    elapsed_s: float
    meaning: tuple[str, ...] = ()
    details: dict[str, float] = field(default_factory=dict)

    @property
    def valid(self) -> bool:
        """Whether the report's own error estimate is within its tolerance."""
        return bool(self.rel_error_estimate <= self.tol_rel)

    def numbers(self) -> dict[str, Any]:
        return {
            "mse": self.mse,
            "mse_rel": self.mse_rel,
            "bias2": self.bias2,
            "variance": self.variance,
            "by_layer": self.by_layer,
            "by_cause": self.by_cause,
            "by_output": None if self.by_output is None else self.by_output.tolist(),
            "method": self.method,
            "rel_error_estimate": self.rel_error_estimate,
            "tol_rel": self.tol_rel,
            "mse_se": self.mse_se,
            "mse_chip_sd": self.mse_chip_sd,
            "valid": self.valid,
            "reason": self.reason,
            "read_power_w": self.read_power_w,
            "power_by_component": self.power_by_component,
            "power_by_layer": self.power_by_layer,
            "accuracy_clean": self.accuracy_clean,
            "accuracy_quantized": self.accuracy_quantized,
            "accuracy_predicted": self.accuracy_predicted,
            "n_inputs": self.n_inputs,
            "elapsed_s": self.elapsed_s,
        }

    def rows(self) -> list[tuple[str, str]]:
        verdict = "valid" if self.valid else "NOT valid"
        chip = "-" if self.mse_chip_sd is None else f"{self.mse_chip_sd:.3g}"
        return [
            ("network", f"{self.provenance.network}, error of {self.provenance.output!r} against the {self.provenance.reference} network"),
            ("MSE", f"{self.mse:.4g}" + (f" +- {1.96 * self.mse_se:.2g} (95 %)" if self.mse_se else "")),
            ("relative MSE", _relative(self.mse_rel)),
            ("  bias^2 + variance", f"{self.bias2:.4g} + {self.variance:.4g}"),
            ("own error estimate", f"{percent(self.rel_error_estimate)}, tolerance {percent(self.tol_rel, 0)}: {verdict}"),
            ("method", f"{self.method}: {self.reason}"),
            ("spread over chips", f"{chip} (standard deviation of the MSE from chip to chip)"),
            ("read power", f"{format_quantity(self.read_power_w, 'watt', n_digits=4)}" + _components(self.power_by_component)),
            (
                "accuracy",
                f"clean {percent(self.accuracy_clean)}, quantized {percent(self.accuracy_quantized)}, "
                f"predicted {percent(self.accuracy_predicted)}"
                if self.accuracy_clean is not None
                else "- (samples have no labels)",
            ),
            *((f"  by cause: {name}", f"{value:.4g}  ({percent(_share(value, self.mse), 1)})") for name, value in self.by_cause.items()),
            *((f"  by layer: {name}", f"{value:.4g}  ({percent(_share(value, self.mse), 1)})") for name, value in self.by_layer.items()),
            ("inputs, time", f"{self.n_inputs} images, {self.elapsed_s:.2f} s"),
            *(("means", line) for line in self.meaning),
        ]

    def explain(self) -> str:
        """Return which layer and cause to look at first, and what halving its error would buy."""
        layers = sorted(((v, n) for n, v in self.by_layer.items() if n != INTERACTION), reverse=True)
        causes = sorted(((v, n) for n, v in self.by_cause.items() if n != INTERACTION), reverse=True)
        if self.mse <= 0.0 or not layers or not causes:
            return "There is no error to explain: every source is off."
        body = [
            [name, f"{value:.3g}", percent(value / self.mse, 1), f"{self.mse - 0.75 * value:.3g}", percent(-0.75 * value / self.mse, 1)]
            for value, name in layers
        ]
        header = ["layer", "MSE, only it on", "share", "total if its error is halved", "change"]
        first = f"{layers[0][1]!r} first, for the cause {causes[0][1]!r} ({percent(causes[0][0] / self.mse, 1)} of the MSE)."
        return f"{first}\nHalving an error's standard deviation takes away three quarters of its MSE.\n\n{columns_table(header, body)}"

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one record a layer: its MSE alone, its share and its read power."""
        return [
            {"layer": name, "mse": value, "share": _share(value, self.mse), "read_power_w": self.power_by_layer.get(name)}
            for name, value in self.by_layer.items()
        ]

    def arrays(self) -> dict[str, np.ndarray]:
        return {} if self.by_output is None else {"by_output": self.by_output}

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the MSE by layer and by cause as horizontal bars."""
        from accelsim.plot.error import plot_error_report

        return plot_error_report(self, ax)

    __repr__ = Report.__str__


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TrialReport(Report):
    """The error of a plan on samples, sampled over programmings.

    Parameters
    ----------
    mse, ci_low, ci_high, confidence, mse_se
        Estimate, interval over noise draws with the inputs given, its confidence, and the standard error.
    stopped_by
        `rel_error`, `max_trials` or `interrupt`.
    variance_factor
        How many times fewer trials the control variate made enough; 1 without.
    accuracy, accuracy_ci
        Mean over trials and images, with its interval over images; None without labels.
    mse_chip_sd, mse_chip_quantiles
        Spread of the MSE from one programming, or chip, to the next; not what is fresh at each inference.
    n_effective
        Where there are faults: trials that as many equal ones would be worth; a run is not ended before there are 100.
    """

    kind: ClassVar[str] = "trials"
    provenance: Provenance
    mse: float
    ci_low: float
    ci_high: float
    mse_se: float
    mse_rel: float
    confidence: float
    n_trials: int
    stopped_by: str
    variance_factor: float
    control_variate: str
    accuracy: float | None
    accuracy_ci: tuple[float, float] | None
    mse_chip_sd: float
    mse_chip_quantiles: dict[str, float]
    read_power_w: float
    n_inputs: int
    losses: Array
    elapsed_s: float
    cpu_s: float
    n_effective: float | None = None

    def numbers(self) -> dict[str, Any]:
        return {
            "mse": self.mse,
            "ci_low": self.ci_low,
            "ci_high": self.ci_high,
            "confidence": self.confidence,
            "mse_se": self.mse_se,
            "mse_rel": self.mse_rel,
            "n_trials": self.n_trials,
            "stopped_by": self.stopped_by,
            "variance_factor": self.variance_factor,
            "control_variate": self.control_variate,
            "accuracy": self.accuracy,
            "accuracy_ci": None if self.accuracy_ci is None else list(self.accuracy_ci),
            "mse_chip_sd": self.mse_chip_sd,
            "mse_chip_quantiles": self.mse_chip_quantiles,
            "read_power_w": self.read_power_w,
            "n_inputs": self.n_inputs,
            "elapsed_s": self.elapsed_s,
            "cpu_s": self.cpu_s,
            "n_effective": self.n_effective,
        }

    def rows(self) -> list[tuple[str, str]]:
        low, high = self.accuracy_ci or (0.0, 0.0)
        q = self.mse_chip_quantiles
        return [
            ("network", f"{self.provenance.network}, error of {self.provenance.output!r} against the {self.provenance.reference} network"),
            ("MSE", f"{self.mse:.4g}, {percent(self.confidence, 0)} interval {self.ci_low:.4g} to {self.ci_high:.4g}"),
            ("relative MSE", _relative(self.mse_rel)),
            (
                "trials",
                f"{self.n_trials}, ended by {self.stopped_by}; control variate: {self.control_variate}, "
                f"worth a factor {self.variance_factor:.3g}"
                + ("" if self.n_effective is None else f"; as good as {self.n_effective:.0f} equal faults"),
            ),
            ("spread over chips", f"sd {self.mse_chip_sd:.3g}; 5 % to 95 % of chips {q['0.05']:.3g} to {q['0.95']:.3g}"),
            ("read power", format_quantity(self.read_power_w, "watt", n_digits=4)),
            (
                "accuracy",
                "- (samples have no labels)"
                if self.accuracy is None
                else f"{percent(self.accuracy)}, interval over images {percent(low)} to {percent(high)}",
            ),
            ("inputs, time", f"{self.n_inputs} images, {self.elapsed_s:.1f} s, {self.cpu_s:.1f} CPU s"),
        ]

    def agreement_with(self, report: ErrorReport, *, tolerance: float = 0.05) -> "Agreement":
        """Return how the prediction compares: ratio of predicted to sampled MSE with its interval, z, and the verdict."""
        return agreement(report, self, tolerance=tolerance)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one record a trial: its number and its loss."""
        return [{"trial": t, "mse": float(loss)} for t, loss in enumerate(self.losses)]

    def arrays(self) -> dict[str, np.ndarray]:
        return {"losses": self.losses}

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the distribution of the MSE over chips, with the mean's interval."""
        from accelsim.plot.error import plot_trial_report

        return plot_trial_report(self, ax)

    __repr__ = Report.__str__


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Predicted over sampled MSE: `agrees` when the ratio's interval meets 1 +- tolerance; z is informative only."""

    ratio: float
    ratio_ci: tuple[float, float]
    z: float
    tolerance: float
    agrees: bool

    def numbers(self) -> dict[str, Any]:
        """Return the fields by their names in the JSON."""
        return {"ratio": self.ratio, "ratio_ci": list(self.ratio_ci), "z": self.z, "tolerance": self.tolerance, "agrees": self.agrees}

    def __str__(self) -> str:
        word = "agrees" if self.agrees else "does NOT agree"
        low, high = self.ratio_ci
        found = f"predicted / sampled = {self.ratio:.4f}, interval {low:.4f} to {high:.4f}, z = {self.z:+.2f}"
        return f"{found}: {word} within {percent(self.tolerance, 0)}"


def agreement(report: ErrorReport, trials: TrialReport, *, tolerance: float) -> Agreement:
    """Compare a prediction with trials of the same plan, samples, output and reference."""
    _check_same_question(report.provenance, trials.provenance)
    if trials.mse <= 0.0:
        same = report.mse <= 0.0
        return Agreement(
            ratio=1.0 if same else np.inf, ratio_ci=(1.0, 1.0) if same else (np.inf, np.inf), z=0.0, tolerance=tolerance, agrees=same
        )
    ratio = report.mse / trials.mse
    low = report.mse / trials.ci_high
    high = report.mse / trials.ci_low if trials.ci_low > 0.0 else np.inf
    error = float(np.hypot(trials.mse_se, report.mse_se))
    return Agreement(
        ratio=ratio,
        ratio_ci=(low, high),
        z=(report.mse - trials.mse) / error if error > 0.0 else 0.0,
        tolerance=tolerance,
        agrees=bool(low <= 1.0 + tolerance and high >= 1.0 - tolerance),
    )


def _check_same_question(one: Provenance, other: Provenance) -> None:
    for name in ("network_digest", "spec_digest", "samples_digest", "output", "reference"):
        if getattr(one, name) != getattr(other, name):
            raise ValueError(
                f"prediction and trials answer different questions: {name} is {getattr(one, name)!r} and {getattr(other, name)!r}"
            )


def _components(parts: dict[str, float]) -> str:
    shown = ", ".join(f"{name} {format_quantity(value, 'watt', n_digits=4)}" for name, value in parts.items() if value > 0.0)
    return f" ({shown})" if shown else ""


def _relative(mse_rel: float) -> str:
    """Return the relative MSE with what it is relative to; outputs that are all the same have no variance."""
    return f"{mse_rel:.4g} of the variance of the clean outputs" if math.isfinite(mse_rel) else "- (the clean outputs do not vary)"


def _share(value: float, total: float) -> float:
    return value / total if total > 0.0 else 0.0
