"""The answer of the optimizer: a design with its certificate, what it saves, and Monte-Carlo's verdict."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from accelsim.design import Design
from accelsim.report.base import Report
from accelsim.report.origin import Provenance
from accelsim.report.records import TrialReport
from devices.base.quantity import format_quantity, percent
from workloads.operators.base import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The best common scale: every layer gives the same conductance to its largest weight.

    `mse`, `read_power_w` and `g_used_siemens` are at the same budget (None where no common scale meets it);
    `power_at_same_mse_w` is what a common scale needs for the optimum's error (None where it cannot reach it).
    """

    mse: float | None
    read_power_w: float | None
    g_used_siemens: float | None
    power_at_same_mse_w: float | None

    def numbers(self) -> dict[str, Any]:
        """Return the fields by their names in the JSON."""
        return {
            "mse": self.mse,
            "read_power_w": self.read_power_w,
            "g_used_siemens": self.g_used_siemens,
            "power_at_same_mse_w": self.power_at_same_mse_w,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class DesignReport(Report):
    """The best design under a budget, or why there is none.

    Parameters
    ----------
    feasible
        Whether any design meets the budget; when not, `floor` and `gap` say by how much, and `levers` what helps.
    mse, read_power_w
        Predicted at the design, on the samples it was optimized on; `mse_verify`, `read_power_verify_w` on those it was not.
    mse_verify_rel_error
        The prediction's own estimate of its relative error, of `mse_verify`.
    multiplier
        Price of the budget: MSE saved per watt (power budget), watts per unit of MSE (error budget).
    duality_gap
        Relative gap to a proven bound of the model's optimum.
    pareto
        Records of `read_power_w`, `mse`: the whole trade-off.
    mc
        Monte-Carlo at the design on samples that were not optimized on.
    """

    kind: ClassVar[str] = "optimize"
    provenance: Provenance
    feasible: bool
    design: Design | None
    per: str
    power_budget_w: float | None
    mse_budget: float | None
    yield_p: float | None
    mse: float | None
    mse_verify: float | None
    mse_verify_rel_error: float | None
    read_power_w: float | None
    read_power_verify_w: float | None
    controllable_power_w: float | None
    baseline: Baseline | None
    saving_total_rel: float | None
    saving_controllable_rel: float | None
    multiplier: float | None
    duality_gap: float | None
    n_at_upper_bound: int
    n_at_lower_bound: int
    n_refresh: int
    pareto: tuple[dict[str, float], ...]
    mc: TrialReport | None
    yield_sampled_p: float | None
    floor: float | None
    gap: float | None
    levers: tuple[str, ...]
    notes: tuple[str, ...]
    n_inputs: int
    elapsed_s: float

    @property
    def budget(self) -> str:
        """The budget in words."""
        if self.power_budget_w is not None:
            return f"read power at most {format_quantity(self.power_budget_w, 'watt', n_digits=4)}"
        return f"MSE at most {self.mse_budget:.4g}"

    def numbers(self) -> dict[str, Any]:
        return {
            "feasible": self.feasible,
            "design": self._design_dict(),
            "per": self.per,
            "mse": self.mse,
            "mse_verify": self.mse_verify,
            "mse_verify_rel_error": self.mse_verify_rel_error,
            "read_power_w": self.read_power_w,
            "read_power_verify_w": self.read_power_verify_w,
            "controllable_power_w": self.controllable_power_w,
            "budget_w": self.power_budget_w,
            "mse_budget": self.mse_budget,
            "yield_p": self.yield_p,
            "yield_sampled_p": self.yield_sampled_p,
            "baseline": None if self.baseline is None else self.baseline.numbers(),
            "saving_total_rel": self.saving_total_rel,
            "saving_controllable_rel": self.saving_controllable_rel,
            "multiplier": self.multiplier,
            "duality_gap": self.duality_gap,
            "n_at_upper_bound": self.n_at_upper_bound,
            "n_at_lower_bound": self.n_at_lower_bound,
            "n_refresh": self.n_refresh,
            "pareto": list(self.pareto),
            "mc": None if self.mc is None else self.mc.numbers(),
            "floor": self.floor,
            "gap": self.gap,
            "levers": list(self.levers),
            "notes": list(self.notes),
            "n_inputs": self.n_inputs,
            "elapsed_s": self.elapsed_s,
        }

    def _design_dict(self) -> dict[str, Any] | None:
        if self.design is None:
            return None
        used = {k: list(v) if isinstance(v, tuple) else v for k, v in self.design.g_used_siemens.items()}
        bits = {"adc_bits": dict(self.design.adc_bits)} if self.design.adc_bits else {}
        slices = {"slice_bits": {name: list(of) for name, of in self.design.slice_bits.items()}} if self.design.slice_bits else {}
        return {"scale": self.design.scale, "g_used_siemens": used} | bits | slices

    def rows(self) -> list[tuple[str, str]]:
        head = [
            ("network", f"{self.provenance.network}, error of {self.provenance.output!r} against the {self.provenance.reference} network"),
            (
                "question",
                f"best {self._moved()}, {self.budget}"
                + ("" if self.yield_p is None else f" on {percent(self.yield_p, 0)} of chips"),
            ),
        ]
        return head + (self._feasible_rows() if self.feasible else self._infeasible_rows()) + [("note", n) for n in self.notes]

    def _moved(self) -> str:
        """Return what was chosen: without a layer in a crossbar, error rates alone."""
        alone = self.design is not None and not self.design.g_used_siemens
        return "error rates of memories" if alone else f"conductance scales per {self.per}"

    def _infeasible_rows(self) -> list[tuple[str, str]]:
        watts = self.power_budget_w is not None
        shown = [format_quantity(v or 0.0, "watt", n_digits=4) if watts else f"{v:.4g}" for v in (self.floor, self.gap)]
        return [("answer", f"INFEASIBLE: the floor is {shown[0]}, {shown[1]} above the budget"), *(("lever", text) for text in self.levers)]

    def predicted_verify(self) -> str:
        """Return the MSE predicted on the samples held out, with its own estimate of its error where there is one."""
        own = "" if self.mse_verify_rel_error is None else f" +- {percent(self.mse_verify_rel_error, 1)}"
        return f"{self.mse_verify:.4g}{own}"

    def _feasible_rows(self) -> list[tuple[str, str]]:
        rows = [
            (
                "MSE",
                f"{self.mse:.4g} on the samples optimized on"
                + ("" if self.mse_verify is None else f"; {self.predicted_verify()} predicted on those held out"),
            ),
            (
                "read power",
                f"{format_quantity(self.read_power_w or 0.0, 'watt', n_digits=4)}, of which the scales control "
                f"{format_quantity(self.controllable_power_w or 0.0, 'watt', n_digits=4)}"
                + (
                    ""
                    if self.read_power_verify_w is None
                    else f"; {format_quantity(self.read_power_verify_w, 'watt', n_digits=4)} predicted on those held out"
                ),
            ),
            ("multiplier", f"{self.multiplier:.4g} " + ("MSE per watt" if self.power_budget_w is not None else "watts per unit of MSE")),
            (
                "certificate",
                f"within {self.duality_gap:.1e} of a proven bound of the model; {self.n_at_upper_bound} scales at their largest, "
                f"{self.n_at_lower_bound} at their smallest; {self.n_refresh} refreshes",
            ),
        ]
        if self.baseline is not None:
            rows.append(("best common scale", self._baseline_text(self.baseline)))
        if self.mc is not None:
            rows.append(
                (
                    "Monte-Carlo",
                    f"MSE {self.mc.mse:.4g} ({self.mc.ci_low:.4g} to {self.mc.ci_high:.4g}), "
                    f"read power {format_quantity(self.mc.read_power_w, 'watt', n_digits=4)}, on {self.mc.n_inputs} held-out images",
                )
            )
        if self.yield_sampled_p is not None:
            rows.append(("yield", f"{percent(self.yield_sampled_p, 1)} of the sampled chips meet the budget"))
        return rows + self._design_rows()

    def _baseline_text(self, baseline: Baseline) -> str:
        at_budget = "does not meet the budget"
        if baseline.mse is not None:
            used = format_quantity(baseline.g_used_siemens or 0.0, "siemens", n_digits=4)
            at_budget = f"{used}: MSE {baseline.mse:.4g} at {format_quantity(baseline.read_power_w or 0.0, 'watt', n_digits=4)}"
        if baseline.power_at_same_mse_w is None:
            return at_budget
        return (
            f"{at_budget}; at equal MSE the design saves {percent(self.saving_total_rel, 1)} of the total, "
            f"{percent(self.saving_controllable_rel, 1)} of the controllable power"
        )

    def _design_rows(self) -> list[tuple[str, str]]:
        assert self.design is not None  # only feasible answers have these rows
        bits = {name: f", ADC of {n} bits" for name, n in self.design.adc_bits.items()}
        slices = {name: f", slices of {'+'.join(map(str, of))} bits" for name, of in self.design.slice_bits.items()}
        return [
            (f"  g_used: {name}", _range_text(used) + bits.get(name, "") + slices.get(name, ""))
            for name, used in self.design.g_used_siemens.items()
        ]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the Pareto curve, one record a point."""
        return [dict(point) for point in self.pareto]

    def arrays(self) -> dict[str, np.ndarray]:
        found: dict[str, Array] = {
            "pareto_power_w": np.array([p["read_power_w"] for p in self.pareto]),
            "pareto_mse": np.array([p["mse"] for p in self.pareto]),
        }
        return found if self.mc is None else {**found, "mc_losses": self.mc.losses}

    def texts(self) -> dict[str, str]:
        return {} if self.design is None else {"design.toml": self.design.to_toml()}

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the Pareto curve with the design and the best common scale."""
        from accelsim.plot.pareto import plot_pareto

        base = self.baseline
        return plot_pareto(
            [point["read_power_w"] for point in self.pareto],
            [point["mse"] for point in self.pareto],
            chosen=None if self.read_power_w is None or self.mse is None else (self.read_power_w, self.mse),
            baseline=None if base is None or base.read_power_w is None or base.mse is None else (base.read_power_w, base.mse),
            budget_w=self.power_budget_w,
            mse_budget=self.mse_budget,
            heading="" if self.feasible else "No design meets the budget",
            note=f"{self.provenance.network}, scales per {self.per}, {self.budget}",
            ax=ax,
        )

    __repr__ = Report.__str__


def _range_text(used: float | tuple[float, ...]) -> str:
    values = used if isinstance(used, tuple) else (used,)
    low, high = (format_quantity(g, "siemens", n_digits=4) for g in (min(values), max(values)))
    return low if len(values) == 1 else f"{low} to {high} over {len(values)} columns"
