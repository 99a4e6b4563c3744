"""Everything of one spec in one table: error, accuracy, time, energy, area."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from accelsim.report.base import Report
from accelsim.report.origin import Provenance
from accelsim.report.records import ErrorReport
from accelsim.report.time_report import TimeReport
from devices.base.quantity import format_quantity, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OF_ERROR = ("mse", "mse_rel", "rel_error_estimate", "valid", "accuracy_clean", "accuracy_quantized", "accuracy_predicted", "by_cause")
_OF_TIME = ("latency_s", "ii_s", "throughput_per_s", "energy_j", "power_w", "area_m2", "utilization", "bottleneck", "energy_by_component")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Evaluation(Report):
    """What `predict` and `simulate` say of one plan."""

    kind: ClassVar[str] = "evaluate"
    error: ErrorReport
    time: TimeReport
    elapsed_s: float

    @property
    def provenance(self) -> Provenance:  # type: ignore[override]
        """That of the prediction, with the warnings of both."""
        both = tuple(dict.fromkeys((*self.error.provenance.warnings, *self.time.provenance.warnings)))
        return replace(self.error.provenance, warnings=both)

    def numbers(self) -> dict[str, Any]:
        error, time = self.error.numbers(), self.time.numbers()
        flat = {name: error[name] for name in _OF_ERROR} | {name: time[name] for name in _OF_TIME}
        return flat | {"elapsed_s": self.elapsed_s, "predicted": error, "simulated": time}

    def rows(self) -> list[tuple[str, str]]:
        e, t = self.error, self.time
        verdict = "valid" if e.valid else "NOT valid"
        per_second = f"{t.throughput_per_s:.4g} images/s"
        return [
            ("network", f"{e.provenance.network} on {e.n_inputs} images"),
            ("relative MSE", f"{e.mse_rel:.4g}, own error estimate {percent(e.rel_error_estimate)}: {verdict}"),
            *((f"  {name}", percent(value / e.mse if e.mse else 0.0, 1)) for name, value in e.by_cause.items()),
            ("accuracy", _accuracy(e)),
            ("latency", format_quantity(t.latency_s, "second", n_digits=4) + f", engine {t.engine}"),
            ("interval", f"{format_quantity(t.ii_s, 'second', n_digits=4)}, {per_second}; {t.bottleneck} sets it"),
            ("energy", f"{format_quantity(t.energy_j, 'joule', n_digits=4)} an image"),
            *((f"  {name}", percent(value / t.energy_j, 1)) for name, value in sorted(t.energy_by_component.items(), key=_by_size)[:8]),
            ("power", f"{format_quantity(t.power_w, 'watt', n_digits=4)} on average"),
            ("area", f"{t.area_m2 * 1e6:.4g} mm2" if t.area_m2 else "-"),
            *([("arrays", f"{t.n_arrays} on {t.n_tiles} tile{'' if t.n_tiles == 1 else 's'}")] if t.n_arrays else []),
            *([("multipliers", f"{t.n_multipliers:,}")] if t.n_multipliers else []),
        ]

    def to_dicts(self) -> list[dict[str, Any]]:
        layers = [row for row in self.time.to_dicts() if row["stage"] in self.error.by_layer]
        energy = self.time.energy_by_layer
        return [row | {"mse": self.error.by_layer[row["stage"]], "energy_j": energy.get(row["stage"], 0.0)} for row in layers]

    def arrays(self) -> dict[str, np.ndarray]:
        return {}

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw each layer's share of error, energy and time."""
        from accelsim.plot.evaluation import plot_evaluation

        return plot_evaluation(self, ax)

    __repr__ = Report.__str__


def _by_size(item: tuple[str, float]) -> float:
    return -item[1]


def _accuracy(report: ErrorReport) -> str:
    if report.accuracy_clean is None:
        return "- (samples have no labels)"
    return f"{percent(report.accuracy_predicted)} predicted, {percent(report.accuracy_clean)} clean"
