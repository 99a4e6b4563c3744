"""The presets at a glance: range, and programming error at its bottom, middle and top."""

from dataclasses import asdict, dataclass, replace

import numpy as np

from accelsim.accelerator import Accelerator, Cell
from devices import catalog
from devices.ageing import Ageing
from devices.programming import GaussianError

A_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetFacts:
    """One preset: its range, the standard deviations of its programming error before clipping (None without), and its source."""

    name: str
    summary: str
    source: str
    g_min_siemens: float
    g_max_siemens: float
    error_siemens: tuple[float, float, float] | None
    left_after_a_day: float | None = None

    @property
    def drift_text(self) -> str:
        """What is left of the highest conductance after a day."""
        return "-" if self.left_after_a_day is None else f"{100 * self.left_after_a_day:.3g} %"

    @property
    def range_text(self) -> str:
        """The range in microsiemens."""
        return f"{1e6 * self.g_min_siemens:g} to {1e6 * self.g_max_siemens:g}"

    @property
    def error_text(self) -> str:
        """The errors in microsiemens."""
        return "-" if self.error_siemens is None else " / ".join(f"{1e6 * e:.3g}" for e in self.error_siemens)

    def record(self) -> dict[str, object]:
        """Return the facts as plain values."""
        return asdict(self)


def preset_facts(name: str) -> PresetFacts:
    """Return the facts of a preset."""
    cell = Accelerator.preset(name).cell
    errors = None
    if isinstance(cell.programming, GaussianError):
        states = np.linspace(cell.g_min_siemens, cell.g_max_siemens, 3)
        std = np.broadcast_to(cell.programming.std_siemens(states, cell.g_max_siemens), 3)
        errors = (float(std[0]), float(std[1]), float(std[2]))
    return PresetFacts(
        name=name,
        summary=catalog.summary(name),
        source=cell.source,
        g_min_siemens=cell.g_min_siemens,
        g_max_siemens=cell.g_max_siemens,
        error_siemens=errors,
        left_after_a_day=_left(cell),
    )


def _left(cell: Cell) -> float | None:
    """Return what is left of the highest conductance after a day, on average; None without drift."""
    if not isinstance(cell.drift, Ageing):
        return None
    aged = replace(cell.drift, t_s=A_DAY_S)  # type: ignore[type-var]
    return float(aged.moments(np.full(1, cell.g_max_siemens), cell.g_max_siemens).mean_siemens[0] / cell.g_max_siemens)
