"""Bits of the converters behind the columns, one number a layer, chosen together with the scales.

Layer l's ADC with n bits adds e_l(n) to the MSE, measured on ideal stored weights with that converter alone, and takes P_l(n). Both add
over layers (errors of different converters hardly meet). For a price lambda of a watt each layer is on its own,

    n_l(lambda) = argmin_n e_l(n) + lambda P_l(n),                                                            (1)

which visits the corners of the lower convex hull of all combinations, from every converter at its largest to every one at its smallest.
At each corner the scales' closed form, with memories that move by the same price, says what the rest of the budget buys; the best corner,
improved by single changes and exchanges, is the answer. Between two corners no combination is below their chord, so the best point on the
chords bounds what any choice of bits could reach: the gap is reported.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from accelsim.ledger import conversions_of, inferences_per_second
from accelsim.optimizer.closed_form import minimize_mse, minimize_power
from accelsim.optimizer.problem import Infeasible, Problem
from accelsim.placement import PlacedLayer, Plan
from accelsim.response.target import ideal_weights
from devices.base.errors import SpecError
from devices.converter_cost import ConverterCost
from workloads.network import Network
from workloads.operators.base import Array
from workloads.samples import Samples

N_BETWEEN = 8
"""Points tried on the chord between two corners."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BitTable:
    """By layer, for each number of bits: MSE added and power taken, `(n_layers, n_choices)`."""

    layers: tuple[str, ...]
    bits: tuple[int, ...]
    mse: Array
    power_w: Array

    def corners(self) -> list[tuple[int, ...]]:
        """Return the choices (an index a layer) of (1), from the most power to the least."""
        at = [int(np.argmin(errors)) for errors in self.mse]
        found = [tuple(at)]
        while True:
            best, move = np.inf, None
            for i, n in enumerate(at):  # the next corner gives up least error for the power it frees
                for m in range(n):
                    freed = self.power_w[i, n] - self.power_w[i, m]
                    price = (self.mse[i, m] - self.mse[i, n]) / freed if freed > 0.0 else np.inf
                    if price < best:
                        best, move = price, (i, m)
            if move is None:
                return found
            at[move[0]] = move[1]
            found.append(tuple(at))

    def totals(self, choice: Sequence[int]) -> tuple[float, float]:
        """Return MSE and power of a choice."""
        rows = np.arange(len(self.layers))
        return float(self.mse[rows, list(choice)].sum()), float(self.power_w[rows, list(choice)].sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class BitChoice:
    """Bits by layer, the MSE and power that the model gives the whole design, and how far below any other choice could be."""

    bits: Mapping[str, int]
    mse: float
    power_w: float
    gap_rel: float


def bit_table(plan: Plan, graph: Network, samples: Samples, bits: Sequence[int]) -> BitTable:
    """Return what each layer's converter costs in error and in power; raise SpecError where a power is not known."""
    layers = [layer for layer in plan.layers if layer.path is not None and layer.path.adcs]
    if not layers:
        raise SpecError("adc_bits: no layer has a sense.adc whose bits could be chosen; add one to the spec")
    ideal = ideal_weights(plan).without_adcs()
    wanted = ideal.outputs(graph, samples)
    mse, power = np.zeros((2, len(layers), len(bits)))
    rate = inferences_per_second(plan)
    for i, layer in enumerate(layers):
        for j, n in enumerate(bits):
            path = layer.with_adc_bits(n).path
            assert path is not None  # it had one
            view = replace(ideal, paths={**ideal.paths, layer.node: path})
            mse[i, j] = np.mean((view.outputs(graph, samples) - wanted) ** 2)
            power[i, j] = conversions_of(layer).adc * _model(layer).energy_j(n) * rate
    return BitTable(layers=tuple(layer.name for layer in layers), bits=tuple(bits), mse=mse, power_w=power)


def _model(layer: PlacedLayer) -> ConverterCost:
    model = getattr(layer.sense.adc, "conversion", None)
    if not isinstance(model, ConverterCost):
        raise SpecError(
            f"sense.adc.conversion: absent for layer {layer.name!r}; without the energy of a conversion, more bits are always better; "
            "give a model of it, e.g. kind = survey_regression"
        )
    return model


def choose_bits(
    table: BitTable, problem: Problem, present: Mapping[str, int], *, power_budget_w: float | None, mse_budget: float | None,
    solve: "Callable[[Problem], tuple[float, float] | Infeasible] | None" = None,
) -> BitChoice | Infeasible:  # fmt: skip
    """Return the bits with which the rest's optimum is best: least MSE within a power, or least power within an MSE.

    The rest are the scales, by their closed form, or what `solve` moves: it returns MSE and power of a problem's optimum.
    """
    now = table.totals([table.bits.index(present[name]) if present[name] in table.bits else len(table.bits) - 1 for name in table.layers])

    def value(mse: float, power_w: float) -> "tuple[float, float] | Infeasible":
        moved = problem.moved(mse - now[0], power_w - now[1])
        if solve is not None:
            return solve(moved)
        found = minimize_mse(moved, power_budget_w) if power_budget_w is not None else minimize_power(moved, mse_budget or 0.0)
        return found if isinstance(found, Infeasible) else (found.mse, found.power_w)

    answer = best_choice(table, table.corners(), value, 0 if power_budget_w is not None else 1)
    if isinstance(answer, Infeasible):
        return answer
    chosen, (mse, power_w), gap = answer
    return BitChoice(bits={name: table.bits[n] for name, n in zip(table.layers, chosen)}, mse=mse, power_w=power_w, gap_rel=gap)


def best_choice(
    table: BitTable, corners: list[tuple[int, ...]], value: "Value", side: int, *, exchange: bool = True
) -> "tuple[tuple[int, ...], tuple[float, float], float] | Infeasible":
    """Return the best choice, its MSE and power, and the relative gap to the bound; `side` 0 for least MSE, 1 for least power."""
    points = [table.totals(choice) for choice in corners]
    answers = [value(*point) for point in points]
    feasible = [(i, a) for i, a in enumerate(answers) if not isinstance(a, Infeasible)]
    if not feasible:
        return min((a for a in answers if isinstance(a, Infeasible)), key=lambda a: a.floor)
    best, answer = min(feasible, key=lambda pair: pair[1][side])
    chosen, bound = corners[best], _bound(points, value, side, answer[side])
    if exchange:
        chosen, answer = _improved(table, chosen, answer, value, side)
    return chosen, answer, max(answer[side] / bound - 1.0, 0.0) if bound > 0.0 else 0.0


Value = Callable[[float, float], "tuple[float, float] | Infeasible"]


def _improved(
    table: BitTable, choice: tuple[int, ...], answer: tuple[float, float], value: Value, side: int
) -> tuple[tuple[int, ...], tuple[float, float]]:
    """Return a choice that no single change, and no exchange of a bit between two layers, makes better: corners leave budget unused."""
    while True:
        best, better = answer, None
        for moved in _neighbours(choice, len(table.bits)):
            found = value(*table.totals(moved))
            if not isinstance(found, Infeasible) and found[side] < best[side] * (1.0 - 1e-9):
                best, better = found, moved
        if better is None:
            return choice, answer
        choice, answer = better, best


def _neighbours(choice: tuple[int, ...], n_choices: int) -> Iterator[tuple[int, ...]]:
    layers = range(len(choice))
    for i in layers:
        for n in range(n_choices):
            if n != choice[i]:
                yield (*choice[:i], n, *choice[i + 1 :])
    for i in layers:
        for j in layers:
            if i != j and choice[i] + 1 < n_choices and choice[j] > 0:
                moved = list(choice)
                moved[i], moved[j] = moved[i] + 1, moved[j] - 1
                yield tuple(moved)


def _bound(points: list[tuple[float, float]], value: Value, side: int, best: float) -> float:
    """Return the least answer on the chords between neighbouring corners."""
    for (mse_a, power_a), (mse_b, power_b) in pairwise(points):
        for share in np.arange(1, N_BETWEEN) / N_BETWEEN:
            found = value((1.0 - share) * mse_a + share * mse_b, (1.0 - share) * power_a + share * power_b)
            if not isinstance(found, Infeasible):
                best = min(best, found[side])
    return best
