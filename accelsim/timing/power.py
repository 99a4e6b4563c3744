"""Power over time, so that its integral is the ledger.

Each token's energy is spread evenly over its service (over a picosecond where it takes none), leakage over the whole run. Energy until a
time is a sum of such ramps; binned power is its differences, so no binning loses or adds any.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from accelsim.timing.energy import LEAK, Ledger
from accelsim.timing.graph import PS
from accelsim.timing.recurrence import Times

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PowerTrace:
    """Mean power in equal bins of a run: edges in seconds `(n + 1,)`, watts `(n,)`."""

    edges_s: Floats
    power_w: Floats

    @property
    def energy_j(self) -> float:
        """The integral."""
        return float((self.power_w * np.diff(self.edges_s)).sum())


def power_trace(times: Times, image: Ledger, leaked: Ledger, *, n_bins: int = 1000) -> PowerTrace:
    """Return the power of a run whose images take `image` each, and which leaks `leaked`."""
    makespan = max(times.makespan_ps, 1)
    edges = np.linspace(0.0, float(makespan), n_bins + 1)
    energy = _dynamic(times, image.by("layer"), edges)
    energy += edges / makespan * sum(entry.energy_j for (_, _, _, cause), entry in leaked.entries.items() if cause == LEAK)
    return PowerTrace(edges_s=edges * PS, power_w=np.diff(energy) / (np.diff(edges) * PS))


def _dynamic(times: Times, by_layer: dict[str, float], edges: Floats) -> Floats:
    """Return the energy spent until each edge, joules; what belongs to no stage is spent evenly."""
    energy = np.zeros(len(edges))
    left = dict(by_layer)
    for stage, start, finish in zip(times.graph.stages, times.start, times.finish):
        total = left.pop(stage.name, 0.0) * times.n_images
        if not total:
            continue
        weight = np.tile(np.maximum(stage.service_ps, 1), times.n_images).astype(float)
        ends = np.maximum(finish, start + 1).astype(float)
        events = np.concatenate([start.astype(float), ends])
        power = np.concatenate([weight / (ends - start), -weight / (ends - start)]) * (total / weight.sum())
        order = np.argsort(events, kind="stable")
        when, level = events[order], np.cumsum(power[order])
        spent = np.concatenate([[0.0], np.cumsum(level[:-1] * np.diff(when))])
        scale = total / spent[-1] if spent[-1] else 0.0  # rounding of the sums, no more
        energy += np.interp(edges, when, spent * scale)
    return np.asarray(energy + edges / edges[-1] * sum(left.values()) * times.n_images)
