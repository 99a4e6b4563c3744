"""Scales for cells whose error is another function of the state, that drift, or that sit behind wires: no closed form, so a table.

Layer l at the conductance g of a grid adds, to first order at the present design,

    e_l(g) = sum_oj V_oj(g) S_oj + mean |J_l (E W~(g) - W)|^2,     P_l(g) = sum_oj (cells of W_oj) a_oj                (1)

with the variance and mean of its cells at that conductance and age, whatever their laws. Both add over layers (biases of different layers
are taken to be unrelated), so that the search is that of the converters' bits (`bits.py`): corners of the convex hull by the price of a
watt, exchanges, and a bound from the chords. Responses are refreshed at each answer, and all errors scaled to what the method that is
good enough says of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from accelsim.ledger import converter_power, reads_per_second_times_read_time
from accelsim.lower import ArraySite
from accelsim.optimizer.bits import BitTable, best_choice
from accelsim.optimizer.problem import Infeasible, within_budgets
from accelsim.placement import PlacedLayer, Plan
from accelsim.prediction.predict import predict
from accelsim.response.linear import Response, respond
from accelsim.response.passes import linearize, push
from accelsim.response.target import ideal_weights
from accelsim.response.weights import Weights
from accelsim.sampling.programmings import Programmer
from devices.base.errors import SpecError
from workloads.network import Network, from_lanes, to_lanes
from workloads.operators.base import Array
from workloads.samples import Samples

N_GRID, LEAST = 25, 0.04
"""Conductances tried for each layer, and the smallest range as a share of the largest."""
MAX_REFRESH, CHUNK = 4, 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tabulated:
    """An answer: conductances by layer, what the model gives them, the gap to its bound, and the trade-off it was found on."""

    g_used_siemens: Mapping[str, float]
    mse: float
    power_w: float
    gap_rel: float
    price: float
    n_refresh: int
    common: tuple[float, float, float] | None
    corners: tuple[tuple[float, float], ...]
    floor_w: float


def needs_table(plan: Plan) -> bool:
    """Whether the closed form does not hold for some layer's cells."""
    return any(_needs_table(layer.site) for layer in plan.layers)


def _needs_table(site: ArraySite) -> bool:
    law = site.cell.programming
    by_state = law is not None and law.scales_with() == "state"
    others = site.cell.drift is not None or site.cell.low_frequency_noise is not None or site.cell.device_to_device is not None
    return by_state or others or site.has_wires


def tabulated(
    plan: Plan,
    graph: Network,
    samples: Samples,
    wanted: Array,
    *,
    seed: int,
    power_budget_w: float | None,
    mse_budget: float | None,
    per: str,
) -> Tabulated | Infeasible:
    """Return the best conductances on the grid, refreshed until they stay; one for all layers with `per="network"`."""
    grids = {layer.name: grid_of(layer.site) for layer in plan.layers}
    now, chosen, found, factor = plan, None, None, 1.0
    for n in range(MAX_REFRESH):
        table, base_mse, base_w = _table(now, graph, samples, wanted, grids, seed=seed)
        table = replace(table, mse=factor * table.mse)

        def value(mse: float, power_w: float, base: tuple[float, float] = (base_mse, base_w)) -> tuple[float, float] | Infeasible:
            return within_budgets(mse + base[0], power_w + base[1], power_budget_w=power_budget_w, mse_budget=mse_budget)

        side = 0 if power_budget_w is not None else 1
        corners = _alike(table) if per == "network" else table.corners()
        answer = best_choice(table, corners, value, side, exchange=per != "network")
        if isinstance(answer, Infeasible):
            return answer
        choice, (mse, power), gap = answer
        points = [table.totals(corner) for corner in corners]
        common = _best_common(table, value, side, grids)
        found = Tabulated(
            g_used_siemens={name: float(grids[name][i]) for name, i in zip(table.layers, choice)},
            mse=mse,
            power_w=power,
            gap_rel=gap,
            price=price_at(points, mse - base_mse),
            n_refresh=n,
            common=common,
            corners=tuple((p + base_w, e + base_mse) for e, p in points),
            floor_w=base_w,
        )
        if choice == chosen:
            break
        chosen = choice
        moved = {name: np.full(1, g) for name, g in found.g_used_siemens.items()}
        now = replace(now, layers=tuple(_with_conductance(layer, moved[layer.name]) for layer in now.layers))
        beyond = predict(now, samples, seed=seed, output=graph.nodes[graph.output].name, attribution=False).mse
        factor *= max((beyond - base_mse) / (mse - base_mse), 0.05) if mse > base_mse else 1.0
    assert found is not None  # the loop ran
    return found


def _with_conductance(layer: PlacedLayer, g_used: Array) -> PlacedLayer:
    bias = None if layer.bias_site is None else layer.bias_site.with_g_used(g_used)
    return replace(layer, site=layer.site.with_g_used(g_used), bias_site=bias)


def grid_of(site: ArraySite) -> Array:
    low, high = site.cell.g_min_siemens, site.cell.g_max_siemens
    return low + (high - low) * np.geomspace(LEAST, 1.0, N_GRID)


def _table(
    plan: Plan, graph: Network, samples: Samples, wanted: Array, grids: Mapping[str, Array], *, seed: int
) -> tuple[BitTable, float, float]:
    """Return (1) for every layer and conductance, and the error and power that no conductance changes."""
    programmer = Programmer(plan, seed=seed)
    response = respond(plan, graph, samples, seed=seed, view=programmer.mean)
    if response.n_probes or response.covariance is None:
        raise SpecError("optimize() with a table carries every output; name a node of fewer outputs by output=")
    ideal = ideal_weights(plan)
    share = reads_per_second_times_read_time(plan)
    mse, power = np.zeros((2, len(plan.layers), N_GRID))
    for i, layer in enumerate(plan.layers):
        parts = response.layers[layer.name]
        rows = parts.row_activity * layer.volts_per_unit**2
        for j, g in enumerate(grids[layer.name]):
            site = layer.site.with_g_used(np.full(1, g))
            moments, (mean, _) = site.moments(), site.stored()
            mse[i, j] = float(np.sum(moments.variance * parts.power)) + read_share(layer.site, site, response, layer.name)
            mse[i, j] += shift_of(graph, samples, ideal, layer, moments.mean - site.ideal_weights())
            power[i, j] = float(np.sum(np.sum(mean, axis=0) * rows)) * share
    base = float(np.mean((ideal.outputs(graph, samples) - wanted) ** 2)) + sum(p.converters for p in response.layers.values())
    converters = sum(sum(converter_power(plan, layer)) for layer in plan.layers)
    names = tuple(layer.name for layer in plan.layers)
    return BitTable(layers=names, bits=tuple(range(N_GRID)), mse=mse, power_w=power), base, converters


def read_share(now: ArraySite, moved: ArraySite, response: Response, name: str) -> float:
    """Return the share of read noise at another conductance: in proportion to the mean variance of a weight's reads."""
    before, after = now.read_variance(), moved.read_variance()
    if before is None or after is None or not before.mean() > 0.0:
        return 0.0
    return response.layers[name].read_noise * float(after.mean() / before.mean())


def shift_of(graph: Network, samples: Samples, ideal: Weights, layer: PlacedLayer, shift: Array) -> float:
    """Return the mean squared first-order change of the outputs for a shift of a layer's mean weights."""
    if not np.any(np.abs(shift) > 1e-9 * np.abs(layer.operator.weights).max()):
        return 0.0
    total = 0.0
    for start in range(0, len(samples), CHUNK):
        point = linearize(graph, to_lanes(samples.x[start : start + CHUNK]), ideal)
        change = from_lanes(push(point, {layer.node: shift.astype(np.float32)}, {})).astype(np.float64)
        total += float(np.sum(change**2))
    return total / (len(samples) * int(np.prod(graph.nodes[graph.output].shape)))


def _alike(table: BitTable) -> list[tuple[int, ...]]:
    """Return the choices in which all layers use the same share of their range."""
    return [(n,) * len(table.layers) for n in reversed(range(len(table.bits)))]


def _best_common(table: BitTable, value, side: int, grids: Mapping[str, Array]) -> tuple[float, float, float] | None:  # type: ignore[no-untyped-def]
    """Return MSE, power and conductance of the best choice that all layers share."""
    found = []
    for choice in _alike(table):
        answer = value(*table.totals(choice))
        if not isinstance(answer, Infeasible):
            found.append((*answer, float(next(iter(grids.values()))[choice[0]])))
    return min(found, key=lambda answer: answer[side]) if found else None


def price_at(points: list[tuple[float, float]], mse: float) -> float:
    """Return what a watt is worth at an error: the slope of the corners' curve there."""
    for (mse_a, power_a), (mse_b, power_b) in pairwise(points):
        if mse_a <= mse <= mse_b and power_a > power_b:
            return (mse_b - mse_a) / (power_a - power_b)
    return 0.0
