"""Slices of the weights, one choice a layer, together with the conductances.

A layer whose weights are in slices s at the largest conductance g adds, to first order at the present design,

    e_l(s, g) = E_l(s) + sum_oj V_oj(s, g) S_oj + mean |J_l (E W~(s, g) - W(s))|^2,     P_l(s, g) = cells + conversions        (1)

E_l is what the layer alone errs without noise: the rounding of its digits, and its converters on ideal sums. All add over layers, as in
`tabulated.py`. Every layer has a list of choices (slices and a conductance), of which those that another beats in error, power and arrays
are dropped; the search is that of the converters' bits: corners of the convex hull, single changes and exchanges, and the chords' bound.
Responses are refreshed at each answer, and errors scaled to what the method that is good enough says of it.

Ranges of converters depend on slices, so a plan is placed for each choice, with the calibration samples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from accelsim.accelerator import LayerOverride
from accelsim.design import Design, Scale
from accelsim.ledger import conversions_of, inferences_per_second, reads_per_second_times_read_time
from accelsim.optimizer.bits import BitTable, best_choice
from accelsim.optimizer.problem import Infeasible, within_budgets
from accelsim.optimizer.tabulated import N_GRID, grid_of, price_at, read_share, shift_of
from accelsim.placement import PlacedLayer, Plan, place
from accelsim.prediction.predict import predict
from accelsim.response.linear import Response, respond
from accelsim.response.target import ideal_weights, input_converters_only
from accelsim.response.weights import Weights
from accelsim.sampling.programmings import Programmer
from accelsim.timing.mapping import map_in_time
from devices.base.errors import InfeasibleError, SpecError
from workloads.network import Network
from workloads.operators.base import Array
from workloads.samples import Samples

Slicing = tuple[int, ...]
MAX_REFRESH = 3
N_PRICES = 25
STEP = 3
"""Every third conductance of the grid of `tabulated.py`: as many choices with the slices as converters have bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One way to store a layer: slices, conductance, and what it adds to error, power and arrays."""

    slicing: Slicing
    g_used_siemens: float
    mse: float
    power_w: float
    n_arrays: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlicedAnswer:
    """The best choices by layer, the plan that has them, what the model gives them, and how far below any other could be."""

    plan: Plan
    slicing: Mapping[str, Slicing]
    g_used_siemens: Mapping[str, float]
    mse: float
    power_w: float
    gap_rel: float
    n_refresh: int
    floor_w: float
    price: float
    corners: tuple[tuple[float, float], ...]


def sliced(
    plan: Plan, graph: Network, samples: Samples, wanted: Array, *, calibration: Samples, choices: Sequence[Slicing], seed: int,
    power_budget_w: float | None, mse_budget: float | None, most_arrays: int | None = None,
) -> SlicedAnswer | Infeasible:  # fmt: skip
    """Return the best slices and conductances on at most so many arrays, refreshed until they stay."""
    plans = {slicing: _placed(plan, slicing, calibration) for slicing in choices}
    names = [layer.name for layer in plan.layers]
    side = 0 if power_budget_w is not None else 1
    factor, chosen, found = 1.0, None, None
    for n in range(MAX_REFRESH):
        options, base = tables(plans, graph, samples, wanted, seed=seed)
        options = [[replace(c, mse=factor * c.mse) for c in of] for of in options]

        def value(mse: float, power_w: float, base: tuple[float, float] = base) -> "tuple[float, float] | Infeasible":
            return within_budgets(mse + base[0], power_w + base[1], power_budget_w=power_budget_w, mse_budget=mse_budget)

        answer = best_of(options, value, side, most_arrays=most_arrays)
        if isinstance(answer, Infeasible):
            return answer
        picked, (mse, power), gap = answer
        table, _ = _table([_kept(of) for of in options])
        points = [table.totals(corner) for corner in table.corners()]
        moved = _combined(plan, plans, dict(zip(names, picked)))
        found = SlicedAnswer(
            plan=moved, slicing={name: c.slicing for name, c in zip(names, picked)},
            g_used_siemens={name: c.g_used_siemens for name, c in zip(names, picked)},
            mse=mse, power_w=power, gap_rel=gap, n_refresh=n, floor_w=base[1],
            price=price_at(points, mse - base[0]), corners=tuple((p + base[1], e + base[0]) for e, p in points),
        )  # fmt: skip
        key = [(c.slicing, c.g_used_siemens) for c in picked]
        if key == chosen:
            break
        chosen = key
        beyond = predict(moved, samples, seed=seed, output=graph.nodes[graph.output].name, attribution=False).mse
        factor *= max((beyond - base[0]) / (mse - base[0]), 0.05) if mse > base[0] else 1.0
        used = Design(scale=_scale(plan), g_used_siemens=dict(found.g_used_siemens))
        plans = {slicing: placed.with_design(used) for slicing, placed in plans.items()}
    assert found is not None  # the loop ran
    return found


def check_slicings(choices: Sequence[Slicing]) -> None:
    """Raise SpecError unless there are slicings to choose from, each once."""
    if not choices or len(set(choices)) < len(choices):
        raise SpecError(f"slice_bits: {[list(c) for c in choices]}: need at least one way to slice weights, each once, e.g. [8] and [4, 4]")
    for choice in choices:
        if any(bits < 1 for bits in choice):
            raise SpecError(f"slice_bits: {list(choice)}: need at least 1 bit a slice")


def _placed(plan: Plan, slicing: Slicing, calibration: Samples) -> Plan:
    assignments = ("mapping.levels=none", f"mapping.slice_bits={list(slicing)}") if slicing else ("mapping.slice_bits=none",)
    plain = replace(plan.accelerator, layers=tuple(_without_slices(layer) for layer in plan.accelerator.layers))
    return place(plan.network, plain.with_set(*assignments), calibration=calibration)


def _without_slices(layer: LayerOverride) -> LayerOverride:
    kept = tuple((path, value) for path, value in layer.leaves if path not in ("mapping.slice_bits", "mapping.levels"))
    return replace(layer, leaves=kept)


def _scale(plan: Plan) -> Scale:
    scale = plan.layers[0].site.mapping.scale
    return "layer" if scale == "network" else scale


def tables(
    plans: Mapping[Slicing, Plan], graph: Network, samples: Samples, wanted: Array, *, seed: int
) -> tuple[list[list[Choice]], tuple[float, float]]:
    """Return (1) for every layer, its choices in no order, and the error and power that no choice changes."""
    first = next(iter(plans.values()))
    converted = input_converters_only(first)
    at = converted.outputs(graph, samples)
    base = float(np.mean((at - wanted) ** 2))
    options: list[list[Choice]] = [[] for _ in first.layers]
    for slicing, plan in plans.items():
        programmer = Programmer(plan, seed=seed)
        response = respond(plan, graph, samples, seed=seed, view=programmer.mean)
        if response.n_probes or response.covariance is None:
            raise SpecError("optimize() with slices carries every output; name a node of fewer outputs by output=")
        ideal, share = ideal_weights(plan), reads_per_second_times_read_time(plan)
        arrays = arrays_by_layer(plan)
        for i, layer in enumerate(plan.layers):
            alone = ideal.only(layer.node).over(converted)
            still = float(np.mean((alone.outputs(graph, samples) - at) ** 2))
            options[i] += list(_choices(plan, layer, slicing, graph, samples, ideal, response, still, share, arrays[layer.name]))
    return options, (base, _dac_power(first))


def _choices(
    plan: Plan, layer: PlacedLayer, slicing: Slicing, graph: Network, samples: Samples, ideal: Weights, response: Response, still: float,
    share: float, n_arrays: int,
) -> list[Choice]:  # fmt: skip
    parts = response.layers[layer.name]
    rows = parts.row_activity * layer.volts_per_unit**2
    found = []
    for g in grid_of(layer.site)[(N_GRID - 1) % STEP :: STEP]:
        site = layer.site.with_g_used(np.full(1, g))
        moments, (mean, _) = site.moments(), site.stored()
        noise = float(np.sum(moments.variance * parts.power)) + read_share(layer.site, site, response, layer.name) + parts.converters
        shift = shift_of(graph, samples, ideal, layer, moments.mean - site.ideal_weights())
        cells = float(np.sum(np.sum(mean, axis=0) * rows)) * share
        power = cells + _adc_power(plan, layer)
        found.append(Choice(slicing=slicing, g_used_siemens=float(g), mse=still + noise + shift, power_w=power, n_arrays=n_arrays))
    return found


def arrays_by_layer(plan: Plan) -> dict[str, int]:
    """Return the arrays of each layer: as the chip places them, where there is one."""
    if plan.accelerator.chip is None:
        return {layer.name: layer.n_arrays * layer.site.mapping.replicas for layer in plan.layers}
    return {mapped.step.name: mapped.n_arrays for mapped in map_in_time(plan).steps if mapped.step.layer is not None}


def _adc_power(plan: Plan, layer: PlacedLayer) -> float:
    model = getattr(layer.sense.adc, "conversion", None)
    if model is None or layer.sense.adc is None:
        return 0.0
    return float(conversions_of(layer).adc * model.energy_j(layer.sense.adc.n_bits) * inferences_per_second(plan))


def _dac_power(plan: Plan) -> float:
    total = 0.0
    for layer in plan.layers:
        model = getattr(layer.drive.dac, "conversion", None)
        if model is not None and layer.drive.dac is not None:
            total += conversions_of(layer).dac * model.energy_j(layer.drive.dac.n_bits) * inferences_per_second(plan)
    return total


def _kept(options: list[Choice], price: float = 0.0) -> list[Choice]:
    """Return the choices that no other beats in error and power, an array counting `price` watts, by rising power."""
    found: list[Choice] = []
    for choice in sorted(options, key=lambda c: (c.power_w + price * c.n_arrays, c.mse)):
        if not found or choice.mse < found[-1].mse:
            found.append(choice)
    return found


Value = Callable[[float, float], "tuple[float, float] | Infeasible"]


def best_of(
    options: list[list[Choice]], value: Value, side: int, *, most_arrays: int | None = None
) -> "tuple[list[Choice], tuple[float, float], float] | Infeasible":
    """Return the best choice of each layer, error and power, and the relative gap to a bound (that of any number of arrays).

    Raises InfeasibleError where so few arrays are not enough.
    """
    free = _table_answer([_kept(of) for of in options], value, side)
    if isinstance(free, Infeasible) or most_arrays is None or _arrays(free[0]) <= most_arrays:
        return free
    least = sum(min(c.n_arrays for c in of) for of in options)
    if least > most_arrays:
        raise InfeasibleError(
            f"the fewest slices take {least} arrays, and the area budget has room for {most_arrays}; give more area, larger arrays "
            "(mapping.array), or slices of more bits"
        )
    bound = free[1][side] / (1.0 + free[2])
    found = [f for f in (_priced(options, value, side, most_arrays, price) for price in _prices(options)) if f is not None]
    if not found:
        raise InfeasibleError(
            f"no choice of slices on {most_arrays} arrays, which the area budget has room for, meets the other budget; without it, "
            f"{_arrays(free[0])} arrays would; give more of either"
        )
    choice, totals = min(found, key=lambda f: f[1][side])
    choice, totals = _exchanged(options, choice, totals, value, side, most_arrays)
    return choice, totals, totals[side] / bound - 1.0 if bound > 0.0 else 0.0


def _arrays(choice: Sequence[Choice]) -> int:
    return sum(c.n_arrays for c in choice)


def _totals(choice: Sequence[Choice]) -> tuple[float, float]:
    return sum(c.mse for c in choice), sum(c.power_w for c in choice)


def _prices(options: list[list[Choice]]) -> Array:
    """Return what an array may count, in watts: from next to nothing to more than all power there is."""
    powers = sum(max(c.power_w for c in of) for of in options)
    return np.geomspace(1e-4, 1e2, N_PRICES) * max(powers, 1e-300) / max(sum(max(c.n_arrays for c in of) for of in options), 1)


def _table(options: list[list[Choice]], price: float = 0.0) -> tuple[BitTable, list[list[Choice]]]:
    width = max(len(of) for of in options)
    padded = [of + [of[-1]] * (width - len(of)) for of in options]
    table = BitTable(
        layers=tuple(map(str, range(len(options)))), bits=tuple(range(width)),
        mse=np.array([[c.mse for c in of] for of in padded]),
        power_w=np.array([[c.power_w + price * c.n_arrays for c in of] for of in padded]),
    )  # fmt: skip
    return table, padded


def _table_answer(options: list[list[Choice]], value: Value, side: int) -> "tuple[list[Choice], tuple[float, float], float] | Infeasible":
    table, padded = _table(options)
    answer = best_choice(table, table.corners(), value, side)
    if isinstance(answer, Infeasible):
        return answer
    choice, totals, gap = answer
    return [padded[i][n] for i, n in enumerate(choice)], totals, gap


def _priced(
    options: list[list[Choice]], value: Value, side: int, most_arrays: int, price: float
) -> tuple[list[Choice], tuple[float, float]] | None:
    """Return the best corner on few enough arrays, where they have a price; None without one."""
    table, padded = _table([_kept(of, price) for of in options], price)
    best: tuple[list[Choice], tuple[float, float]] | None = None
    for corner in table.corners():
        choice = [padded[i][n] for i, n in enumerate(corner)]
        found = value(*_totals(choice))
        if _arrays(choice) <= most_arrays and not isinstance(found, Infeasible) and (best is None or found[side] < best[1][side]):
            best = choice, found
    return best


def _exchanged(
    options: list[list[Choice]], choice: list[Choice], totals: tuple[float, float], value: Value, side: int, most_arrays: int
) -> tuple[list[Choice], tuple[float, float]]:
    """Return a choice that no change of one layer makes better."""
    while True:
        better = None
        for i, of in enumerate(options):
            for other in of:
                moved = [*choice[:i], other, *choice[i + 1 :]]
                found = value(*_totals(moved))
                fits = _arrays(moved) <= most_arrays and not isinstance(found, Infeasible)
                if fits and not isinstance(found, Infeasible) and found[side] < totals[side] * (1.0 - 1e-9):
                    better, totals = moved, found
        if better is None:
            return choice, totals
        choice = better


def _combined(plan: Plan, plans: Mapping[Slicing, Plan], picked: Mapping[str, Choice]) -> Plan:
    """Return the plan whose layers are those of the chosen plans, at the chosen conductances."""
    layers = tuple(plans[picked[layer.name].slicing].layers[i] for i, layer in enumerate(plan.layers))
    design = Design(scale=_scale(plan), g_used_siemens={name: c.g_used_siemens for name, c in picked.items()})
    return replace(plan, layers=layers).with_design(design)
