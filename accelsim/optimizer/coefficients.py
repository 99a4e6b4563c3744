"""The coefficients of the design problem: one linear response, and every design is a closed form away.

For group k (a layer or a column) with conductance per unit weight c_k, u_k = 1/c_k:

    A_k = sum_{oj in k} s^2_oj S_oj          s^2: variance of the pair, siemens squared; S: response power              (1)
    b_k = sum_{oj in k} dG_oj dy/dW_oj       dG: mean shift of the pair by clipping, siemens; b: all (image, output) pairs  (2)
    B_k = sum_{oj in k} |W_oj| a_oj          a_oj: activity, volts squared per image, times rate and read time          (3)

s^2 and dG change slowly with c (a cell's distance from zero does): they are taken at the present design and refreshed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from accelsim.ledger import LayerPower, activity, read_power, reads_per_second_times_read_time
from accelsim.optimizer.problem import BiasModel, Problem
from accelsim.placement import PlacedLayer, Plan
from accelsim.response.linear import Response, respond
from accelsim.response.passes import linearize, pull
from accelsim.response.weights import Weights
from accelsim.sampling.programmings import Programmer, power_views
from devices.base.errors import UnsupportedMethodError
from workloads.network import Network, NodeIndex, to_lanes
from workloads.operators.base import Array, split_lanes
from workloads.samples import Samples
from workloads.walk import walk

MAX_FACTOR_ROWS = 48
CHUNK = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Groups:
    """Which design variable each column belongs to.

    `of_layer[name]` has one group index a column; `n` is the number of groups.
    """

    of_layer: dict[str, Array]
    n: int

    def gather(self, by_layer: dict[str, Array]) -> Array:
        """Return the sum over each group of one value a column."""
        total = np.zeros(self.n)
        for name, values in by_layer.items():
            np.add.at(total, self.of_layer[name], values)
        return total

    def largest(self, by_layer: dict[str, Array]) -> Array:
        """Return the largest value of each group."""
        top = np.zeros(self.n)
        for name, values in by_layer.items():
            np.maximum.at(top, self.of_layer[name], values)
        return top

    def spread(self, by_group: Array) -> dict[str, Array]:
        """Return one value a column from one value a group."""
        return {name: by_group[index] for name, index in self.of_layer.items()}


def groups_of(plan: Plan, per: str) -> Groups:
    """Return the design variables: one a layer, or one a column."""
    of_layer, n = {}, 0
    for layer in plan.layers:
        columns = layer.operator.n_columns
        size = columns if per == "column" else 1
        of_layer[layer.name] = n + (np.arange(columns) if per == "column" else np.zeros(columns, int))
        n += size
    return Groups(of_layer=of_layer, n=n)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coefficients:
    """A design problem, the groups it is over, the present scales, and what does not depend on them.

    Parameters
    ----------
    w_max
        Largest weight of each group; a group of zeros has none and is left out of `active`.
    constant_mse
        Variance that no scale changes (proportional errors): part of the problem's floor.
    power_sd_w
        Standard deviation of the read power over chips at the present design.
    """

    problem: Problem
    groups: Groups
    active: Array
    w_max: Array
    present_siemens: Array
    constant_mse: float
    response: Response
    power_w: float
    power_sd_w: float


def coefficients(
    plan: Plan, graph: Network, samples: Samples, *, reference: Array, per: str, seed: int, variance_factor: float = 1.0
) -> Coefficients:
    """Return the design problem at the plan's present design, exact there in power and (to first order) in error."""
    programmer = Programmer(plan, seed=seed)
    view = programmer.mean
    response = respond(plan, graph, samples, seed=seed, errors=tuple(programmer.checked_errors()), view=view)
    groups = groups_of(plan, per)
    moving, constant = _variances(plan, response)
    if per == "column":
        moving = {name: np.maximum(values, SLEEPING * values.mean()) for name, values in moving.items()}
    scales = {layer.name: layer.site.scale_siemens for layer in plan.layers}
    present = groups.largest(scales)
    w_max = groups.largest({layer.name: layer.site.w_span for layer in plan.layers})
    active = present > 0.0
    variance = variance_factor * groups.gather(moving)
    pooled = float(np.var(reference))
    rel = response.variance / pooled if pooled > 0.0 else 0.0
    linear, square, power_w, power_sd = _power_terms(plan, graph, samples, power_views(programmer, mse_rel=rel), groups)
    bias = _bias_model(
        plan, graph, samples, view, response.mean_output - reference, groups, active=active, present=present, constant=constant
    )
    p0 = power_w - float(np.sum(linear[active] * present[active] + square[active] * present[active] ** 2))
    low = np.array([layer.site.cell.g_min_siemens for layer in plan.layers])
    spans = groups.largest(
        {layer.name: np.full(layer.operator.n_columns, layer.site.cell.g_max_siemens - g) for layer, g in zip(plan.layers, low)}
    )
    c_max = spans[active] / w_max[active]
    problem = Problem(
        variance_siemens2=variance[active],
        linear_w_per_siemens=linear[active],
        square_w_per_siemens2=square[active] if np.any(square) else None,
        c_min_siemens=c_max * MIN_SPAN,
        c_max_siemens=c_max,
        p0_w=max(p0, 0.0),
        bias=bias,
    )
    return Coefficients(
        problem=problem,
        groups=groups,
        active=active,
        w_max=w_max,
        present_siemens=present,
        constant_mse=constant,
        response=response,
        power_w=power_w,
        power_sd_w=power_sd,
    )


SLEEPING = 0.03
"""Least sensitivity of a column, as a share of its layer's mean: to first order a column whose ReLU no sample opens costs
nothing, but one given almost no conductance is so noisy that it wakes up."""

MIN_SPAN = 1e-3
"""The smallest range a design may give to the largest weight, as a share of the technology's."""


def _variances(plan: Plan, response: Response) -> tuple[dict[str, Array], float]:
    """Return by column what scales as 1/c^2 (times c^2), and the MSE that does not depend on c."""
    moving, constant = {}, 0.0
    for layer in plan.layers:
        parts = response.layers[layer.name]
        columns = _by_column(layer, layer.site.moments().variance * parts.power)
        if layer.bias_site is not None:
            columns = columns + layer.bias_site.moments().variance * parts.bias_power
        law, read = layer.site.cell.programming, layer.site.read_law
        constant += parts.converters
        squared = layer.site.scale_siemens**2
        if law is not None and law.scales_with() == "target":
            constant += float(columns.sum())
            columns = np.zeros_like(columns)
        moving[layer.name] = columns * squared
        if read is not None and parts.read_noise > 0.0:
            if read.kind != "state_independent":
                constant += parts.read_noise
            else:  # split over columns in proportion to what each column's reads weigh
                moving[layer.name] = moving[layer.name] + parts.read_noise * squared / len(squared)
    return moving, constant


def _by_column(layer: PlacedLayer, values: Array) -> Array:
    return values.reshape(layer.operator.n_columns, -1).sum(axis=1)


def _power_terms(
    plan: Plan, graph: Network, samples: Samples, views: Sequence[Weights], groups: Groups
) -> tuple[Array, Array, float, float]:
    """Return B and D of each group, the power at the present design, and its standard deviation over chips."""
    share = reads_per_second_times_read_time(plan)
    rows = activity(plan, graph, samples, views)
    linear, square, chip_variance = {}, {layer.name: np.zeros(layer.operator.n_columns) for layer in plan.layers}, 0.0
    for layer in plan.layers:
        linear[layer.name] = _by_column(layer, sum(_per_scale(layer)) * rows[layer.name]) * share
        _, variance = layer.site.stored()
        chip_variance += float(np.sum(sum(variance) * rows[layer.name] ** 2)) * share**2
    if any(layer.sense.feedback_ohm is not None for layer in plan.layers):
        for name, (slope, curve) in _amplifier_terms(plan, graph, samples, views[0], share).items():
            linear[name] = linear[name] + slope
            square[name] = square[name] + curve
    now = total_power(read_power(plan, graph, samples, views))
    return groups.gather(linear), groups.gather(square), now, float(np.sqrt(chip_variance))


def total_power(by_layer: dict[str, LayerPower]) -> float:
    """Return the sum over layers and components, watts."""
    return sum(power.total_w for power in by_layer.values())


def _amplifier_terms(plan: Plan, graph: Network, samples: Samples, view: Weights, share: float) -> dict[str, tuple[Array, Array]]:
    """Split I = c w + i0 (i0: what flows whatever the scale): the power r_f I^2 has c^2 w^2 and 2 c w i0, by column."""
    layers = plan.layer_of_node()
    terms = {layer.name: (np.zeros(layer.operator.n_columns), np.zeros(layer.operator.n_columns)) for layer in plan.layers}
    apply_view = view.applied_to(graph)

    def watch(i: NodeIndex, inputs: tuple[Array, ...]) -> Array:
        if i in layers and layers[i].sense.feedback_ohm is not None:
            layer = layers[i]
            weight = (layer.sense.feedback_ohm or 0.0) * layer.volts_per_unit**2 * share / len(samples)
            for signed, offset in _currents_per_unit(layer, inputs[0]):
                terms[layer.name][0][:] += weight * 2.0 * (signed * offset).reshape(len(signed), -1).sum(axis=1)
                terms[layer.name][1][:] += weight * (signed**2).reshape(len(signed), -1).sum(axis=1)
        return apply_view(i, inputs)

    for start in range(0, len(samples), CHUNK):
        walk(graph, to_lanes(samples.x[start : start + CHUNK]), apply=watch)
    return terms


def _currents_per_unit(layer: PlacedLayer, x: Array) -> list[tuple[Array, Array]]:
    mean, _ = layer.site.stored()
    scale = layer.site.scale_siemens.reshape(-1, *(1,) * (mean[0].ndim - 1))
    unit = float(layer.site.cell.g_max_siemens)
    result = []
    for part, stored in zip(_per_scale(layer), mean):
        signed = layer.operator.multiply(part.astype(np.float32), x).astype(np.float64)
        offset = unit * layer.operator.multiply(((stored - scale * part) / unit).astype(np.float32), x).astype(np.float64)
        result.append((signed, offset))
    return result


def _per_scale(layer: PlacedLayer) -> list[Array]:
    """Return what the conductance of each cell gains when the scale does: targets above g_min, per unit of scale."""
    site = layer.site
    targets = site.targets()
    scale = site.scale_siemens.reshape(-1, *(1,) * (targets[0].ndim - 1))
    live = np.broadcast_to(scale > 0.0, targets[0].shape)
    return [np.divide(t - site.cell.g_min_siemens, scale, out=np.zeros_like(t), where=live) for t in targets]


def _bias_model(
    plan: Plan,
    graph: Network,
    samples: Samples,
    view: Weights,
    q_now: Array,
    groups: Groups,
    *,
    active: Array,
    present: Array,
    constant: float,
) -> BiasModel:
    """Return |q + sum b_k u_k|^2 as a model that is exact at the present design."""
    pairs = float(q_now.size)
    shifts = {layer.node: _mean_shift(layer) for layer in plan.layers}
    if all(not np.any(np.abs(s) > 1e-12 * layer.site.cell.g_max_siemens) for s, layer in zip(shifts.values(), plan.layers)):
        return BiasModel(q2=float(np.mean(q_now**2)) + constant)
    b = _shift_responses(plan, graph, samples, view, shifts, groups)[active]
    q = q_now.ravel() - b.T @ (1.0 / present[active])
    return BiasModel(
        q2=float(np.mean(q**2)) + constant,
        linear_siemens=b @ q / pairs,
        factor_siemens=_compressed(b.T / np.sqrt(pairs)),
    )


def _mean_shift(layer: PlacedLayer) -> Array:
    """Return by how much the mean of what the cells of each weight add up to misses its target, siemens."""
    target, (mean, _) = layer.site.targets(), layer.site.stored()
    law, shift = layer.site.cell.programming, np.zeros_like(target[0])
    if law is None or law.scales_with() != "target":
        for part, asked, got in zip(layer.site.encoding.parts, target, mean):
            shift += part.sign * part.gain * (got - asked)
    return shift


def _shift_responses(plan: Plan, graph: Network, samples: Samples, view: Weights, shifts: dict[NodeIndex, Array], groups: Groups) -> Array:
    """Return b of (2), `(n_groups, N * n_out)`, siemens: in a layer, sum_j dG_oj g_oj = sum_p d_op (dG x)_op."""
    layers = plan.layer_of_node()
    n_out = int(np.prod(graph.nodes[graph.output].shape))
    if n_out > MAX_OUTPUTS:
        raise UnsupportedMethodError(
            f"optimize() carries every output where cells clip, and {n_out} are more than {MAX_OUTPUTS}; use mapping.precompensate"
        )
    rows = []
    for start in range(0, len(samples), CHUNK):
        images = to_lanes(samples.x[start : start + CHUNK])
        n_images = images.shape[-1]
        point = linearize(graph, images, view)
        b = np.zeros((groups.n, n_images, n_out))

        def visit(i: NodeIndex, delta: Array, x: Array, b: Array = b, n_images: int = n_images) -> None:
            layer = layers[i]
            unit = layer.site.cell.g_max_siemens
            moved = layer.operator.multiply((shifts[i] / unit).astype(np.float32), x)
            split = split_lanes(delta, n_images).reshape(layer.operator.n_columns, -1, n_out, n_images)
            along = np.einsum("oprb,opb->obr", split, moved.reshape(layer.operator.n_columns, -1, n_images)) * unit
            np.add.at(b, groups.of_layer[layer.name], along)

        seeds = np.zeros((n_out, n_out, n_images), np.float32)
        seeds[np.arange(n_out), np.arange(n_out)] = 1.0
        pull(point, seeds.reshape(*graph.nodes[graph.output].shape, -1), visit)
        rows.append(b)
    return np.concatenate(rows, axis=1).reshape(groups.n, -1)


MAX_OUTPUTS = 256


def _compressed(factor: Array) -> Array:
    """Return a factor with few rows and the same product F'F, to within its 48 largest directions."""
    if factor.shape[0] <= min(factor.shape[1], MAX_FACTOR_ROWS):
        return factor
    _, values, right = np.linalg.svd(factor, full_matrices=False)
    keep = values[:MAX_FACTOR_ROWS] > 1e-9 * max(float(values[0]), 1e-300)
    return (values[:MAX_FACTOR_ROWS, None] * right[:MAX_FACTOR_ROWS])[keep]
