"""What a memory's errors save: the energy of a bit over its error rate, by one law under its own reference."""

from typing import TYPE_CHECKING

import numpy as np

from accelsim.plot.style import BLUE, VERMILION, axes_for, light_frame, title
from devices.base.errors import SpecError
from devices.reliability import MEASURED_14NM, Sram14nm
from devices.reliability_law import ReliabilityLaw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

N_RATES = 400


def plot_reliability(law: ReliabilityLaw, name: str, ax: "Axes | None" = None) -> "Axes":
    """Draw eta over p on a logarithmic axis, with the points that a built-in fit is of; SpecError for a fixed point."""
    least, largest = law.bounds
    if least == largest:
        raise SpecError(f"--plot: {name} is a fixed point, p = {least:g}: there is no curve to draw")
    ax = axes_for(ax)
    rates = np.geomspace(least, np.nextafter(largest, 0.0), N_RATES).clip(least, np.nextafter(largest, 0.0))
    ax.semilogx(rates, law.energy_rel(rates), color=BLUE, linewidth=1.8)
    if law == Sram14nm():
        volts, measured = np.array(MEASURED_14NM).T
        ax.semilogx(measured, volts**2, "o", color=VERMILION, markersize=5, label="measured")
        ax.legend(frameon=False, fontsize=9)
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel("error rate of a bit")
    ax.set_ylabel("energy of a bit, relative")
    light_frame(ax)
    title(ax, f"Energy and reliability: {name}", note=law.energy_reference)
    return ax
