"""Rare faults: the MSE of stuck cells as a sum over single events, sampled where the damage is.

Two moments say nothing of a fault's size: its effect on the outputs is far from linear, and most of a chip's error may stem from a few
cells. To first order in the probabilities, and with faults of different cells independent,

    E |d|^2 = |sum_e p_e d_e|^2 + sum_e p_e |d_e|^2,     d_e: change of the outputs when cell e alone is stuck            (1)

The first part is the bias of the mean weights. The sum is sampled: events are drawn in proportion to their linear damage
p_e dW_e^2 S_e (S: response power), one in ten in proportion to p_e dW_e^2 alone, so that no event is out of reach; each is run through the
network. Means carry a standard error from the scatter of the events.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from accelsim.placement import PlacedLayer, Plan
from accelsim.prediction.question import Question, Verdict
from accelsim.response.linear import Response
from accelsim.response.target import mean_weights
from accelsim.response.weights import Weights
from devices.stuck import StuckAt
from workloads.network import NodeIndex, from_lanes, to_lanes
from workloads.operators.base import Array
from workloads.walk import rewalk, walk

N_EVENTS, MAX_EVENTS = 256, 2048
INTERACTION = 0.3
"""Relative error of (1) for each unit of relative MSE by faults: they meet in nonlinearities; 3 % at 0.09 and 45 % at 2.4 were seen."""
UNIFORM = 0.1
"""Share of events that are drawn whatever their linear damage."""
IMAGES = 16
"""Images that meet an event together: one vector of lanes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Events:
    """The events of one part of one layer's cells: probability of each, and the change of the weight."""

    layer: PlacedLayer
    part: int
    p: float
    change: Array
    damage: Array


def without_faults(plan: Plan) -> Plan:
    """Return the plan with cells that are never stuck."""

    def healthy(layer: PlacedLayer) -> PlacedLayer:
        cell = replace(layer.site.cell, stuck=None)
        bias = None if layer.bias_site is None else replace(layer.bias_site, cell=cell)
        return replace(layer, site=replace(layer.site, cell=cell), bias_site=bias)

    return replace(plan, layers=tuple(healthy(layer) for layer in plan.layers))


def with_faults(question: Question, response: Response, healthy: Verdict, healthy_plan: Plan) -> Verdict:
    """Return the verdict on a plan with faults from that on the same plan without: biases of the mean, and the sum (1)."""
    events = list(_events(question.plan, healthy_plan, response))
    faults, se = _sampled_sum(question, mean_weights(healthy_plan), events, least=healthy.mse)
    pooled = float(question.wanted.var())
    bias2 = float(np.mean((response.mean_output - question.wanted) ** 2))
    variance = healthy.variance + faults
    mse = bias2 + variance
    scale = variance / healthy.variance if healthy.variance > 0.0 else 1.0
    unsure = healthy.rel_error_estimate * healthy.mse + 1.96 * se + INTERACTION * faults**2 / max(pooled, 1e-300)
    return Verdict(
        method=healthy.method,
        reason=f"{healthy.reason}; stuck cells by single events, {100 * faults / max(mse, 1e-300):.0f} % of the MSE",
        bias2=bias2,
        variance=variance,
        mse_se=float(np.hypot(healthy.mse_se, se)),
        rel_error_estimate=unsure / mse if mse > 0.0 else 0.0,
        mean_output=healthy.mean_output + (response.mean_output - mean_weights(healthy_plan).outputs(question.graph, question.samples)),
        covariance=None if healthy.covariance is None else scale * healthy.covariance,
        by_output=None,
        details={**healthy.details, "stuck_mse": faults},
    )


def _events(plan: Plan, healthy: Plan, response: Response) -> Iterator[_Events]:
    for layer, sound in zip(plan.layers, healthy.layers):
        law = layer.site.cell.stuck
        if not isinstance(law, StuckAt):
            continue
        site, power = sound.site, response.layers[layer.name].power
        mean, _ = site.stored()
        scale = site.read_scale_siemens.reshape(-1, *(1,) * (power.ndim - 1))
        per = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0.0)
        for i, (part, cells) in enumerate(zip(site.encoding.parts, mean)):
            for p, value in ((law.low_p, law.low_siemens), (law.high_p, law.high_siemens)):
                if p > 0.0:
                    change = part.sign * part.gain * (value - cells) * per
                    yield _Events(layer=layer, part=i, p=p, change=change, damage=p * change**2 * power)


def _sampled_sum(question: Question, view: Weights, events: list[_Events], *, least: float) -> tuple[float, float]:
    """Return the sum of (1) and its standard error, small beside an MSE of at least `least`."""
    linear, reach = (np.array([float(values.sum()) for values in found]) for found in _weights_of(events))
    if not linear.sum() > 0.0 and not reach.sum() > 0.0:
        return 0.0, 0.0
    runner, random = _Runner(question, view), np.random.default_rng([question.seed, 0x57CC])
    found: list[float] = []
    while len(found) < MAX_EVENTS:
        found += [_one(runner, events, linear, reach, random) for _ in range(N_EVENTS)]
        mean, se = float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(len(found)))
        if 1.96 * se <= 0.4 * question.tol_rel * (mean + least):
            break
    return mean, se


def _weights_of(events: list[_Events]) -> tuple[list[Array], list[Array]]:
    return [e.damage for e in events], [e.p * e.change**2 for e in events]


def _one(runner: "_Runner", events: list[_Events], linear: Array, reach: Array, random: np.random.Generator) -> float:
    """Return one event's damage over the probability it was drawn with."""
    uniform = random.random() < UNIFORM or not linear.sum() > 0.0
    totals = reach if uniform else linear
    which = events[int(random.choice(len(events), p=totals / totals.sum()))]
    weights = (which.p * which.change**2 if uniform else which.damage).ravel()
    at = int(np.searchsorted(np.cumsum(weights), random.random() * weights.sum()))
    at = min(at, weights.size - 1)
    change = which.change.ravel()[at]
    share = UNIFORM if linear.sum() > 0.0 else 1.0
    q = share * which.p * change**2 / reach.sum()
    if linear.sum() > 0.0:
        q += (1.0 - UNIFORM) * which.damage.ravel()[at] / linear.sum()
    return which.p * runner.damage(which, at, random) / q


class _Runner:
    """The network of mean weights, kept on some images, and what becomes of its outputs when one weight changes."""

    def __init__(self, question: Question, view: Weights) -> None:
        self.graph, self.view, self.samples = question.graph, view, question.samples
        self.kept: dict[int, dict[NodeIndex, Array]] = {}

    def damage(self, events: _Events, at: int, random: np.random.Generator) -> float:
        """Return the mean squared change of the outputs for one event, on a random chunk of images."""
        start = int(random.integers(max(1, len(self.samples) // IMAGES))) * IMAGES
        values = self.kept.get(start)
        if values is None:
            images = to_lanes(self.samples.x[start : start + IMAGES])
            values = self.kept[start] = walk(self.graph, images, apply=self.view.applied_to(self.graph), keep=True)
        output = rewalk(self.graph, values, events.layer.node, apply=self._changed(events, at).applied_to(self.graph))
        return float(np.mean((from_lanes(output).astype(np.float64) - from_lanes(values[self.graph.output])) ** 2))

    def _changed(self, events: _Events, at: int) -> Weights:
        node, change = events.layer.node, events.change.ravel()[at]
        weights = self.view.weights[node].copy()
        weights.ravel()[at] += change
        slices = dict(self.view.slices)
        if node in slices:
            own = events.layer.site.encoding.parts[events.part].slice
            moved = [part.copy() for part in slices[node]]
            n_slices, conduction = events.layer.site.encoding.n_slices, self.view.paths[node].conduction
            for k, weight in enumerate((1.0,) if conduction is None else conduction.error_weights):
                moved[k * n_slices + own].ravel()[at] += weight * change
            slices[node] = tuple(moved)
        return replace(self.view, weights={**self.view.weights, node: weights}, slices=slices)
