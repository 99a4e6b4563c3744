"""Rare faults: the MSE of stuck cells and of wrong bits as a sum over single events, sampled where the damage is.

Two moments say nothing of a fault's size: its effect on the outputs is far from linear, and most of a chip's error may stem from a few
cells. To first order in the probabilities, and with faults of different cells independent,

    E |d|^2 = |sum_e p_e d_e|^2 + sum_e p_e (1 - p_e) |d_e|^2,     d_e: change of the outputs for event e alone            (1)

The first part is the bias of the mean weights and values. The sum is sampled, source by source (`event_sources`): events are drawn in
proportion to their linear damage, and each is run through the network. Means carry a standard error from the scatter of the events.

Faults that stay make chips differ. With D_e the mean of |d_e|^2 over images, a chip's MSE has to first order the variance sum_e p_e D_e^2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from accelsim.lower import ArraySite
from accelsim.placement import PlacedLayer, Plan
from accelsim.prediction.event_sources import Source, sources_of
from accelsim.prediction.question import Question, Verdict
from accelsim.response.linear import Response
from accelsim.response.target import mean_weights
from accelsim.stored_weights import WordSite

N_FIRST, N_MORE, MAX_EVENTS = 512, 128, 16_384
FEW = 12, 128
"""Least and most events of a source that are sampled before the scatter decides."""
INTERACTION = 0.3
"""Relative error of (1) for each unit of relative MSE by faults: they meet in nonlinearities; 3 % at 0.09 and 45 % at 2.4 were seen."""
CAUSES = ("stuck", "memory_weights", "memory_activations", "memory_partial_sums")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSum:
    """The sum of (1) by cause and by layer, its standard error, the variance over chips by lasting faults, and how many events were run."""

    mse: dict[str, float]
    by_layer: dict[str, float]
    mse_se: float
    chip_variance: float
    n_events: int

    @property
    def total(self) -> float:
        """MSE by all faults."""
        return sum(self.mse.values())


def without_faults(plan: Plan) -> Plan:
    """Return the plan with cells that are never stuck, and memories whose bits never err."""
    return replace(plan, layers=tuple(_healthy(layer) for layer in plan.layers))


def _healthy(layer: PlacedLayer) -> PlacedLayer:
    bias = None if layer.bias_site is None else _sound(layer.bias_site)
    buffers = None if layer.buffers is None else layer.buffers.sound()
    return replace(layer, site=_sound(layer.site), bias_site=bias, buffers=buffers)


def _sound(site: ArraySite) -> ArraySite:
    return site.sound() if isinstance(site, WordSite) else replace(site, cell=replace(site.cell, stuck=None))


def with_faults(question: Question, response: Response, healthy: Verdict, healthy_plan: Plan) -> Verdict:
    """Return the verdict on a plan with faults from that on the same plan without: biases of the mean, and the sum (1)."""
    found = event_sum(question, response, healthy_plan, least=healthy.mse)
    faults = found.total
    pooled = float(question.wanted.var())
    bias2 = float(np.mean((response.mean_output - question.wanted) ** 2))
    variance = healthy.variance + faults
    mse = bias2 + variance
    scale = variance / healthy.variance if healthy.variance > 0.0 else 1.0
    unsure = healthy.rel_error_estimate * healthy.mse + 1.96 * found.mse_se + INTERACTION * faults**2 / max(pooled, 1e-300)
    what = "stuck cells" if list(found.mse) == ["stuck"] else "faults"
    return Verdict(
        method=healthy.method,
        reason=f"{healthy.reason}; {what} by single events, {100 * faults / max(mse, 1e-300):.0f} % of the MSE",
        bias2=bias2,
        variance=variance,
        mse_se=float(np.hypot(healthy.mse_se, found.mse_se)),
        rel_error_estimate=unsure / mse if mse > 0.0 else 0.0,
        mean_output=healthy.mean_output + (response.mean_output - mean_weights(healthy_plan).outputs(question.graph, question.samples)),
        covariance=None if healthy.covariance is None else scale * healthy.covariance,
        by_output=None,
        details={
            **healthy.details, **{f"{cause}_mse": mse for cause, mse in found.mse.items()}, "n_events": float(found.n_events),
            **{f"faults of {layer}": mse for layer, mse in found.by_layer.items()}, "fault_chip_variance": found.chip_variance,
            "healthy_variance": healthy.variance,
        },
    )  # fmt: skip


def event_sum(question: Question, response: Response, healthy_plan: Plan, *, least: float) -> EventSum:
    """Return the sum (1) of a plan's faults with a standard error that is small beside an MSE of at least `least`."""
    hopeless = 2.0 * question.tol_rel * float(question.wanted.var()) / INTERACTION
    return sampled_sum(sources_of(question, response, healthy_plan), tol_rel=question.tol_rel, least=least, hopeless=hopeless)


def sampled_sum(sources: Sequence[Source], *, tol_rel: float, least: float, hopeless: float = np.inf) -> EventSum:
    """Return the sum over sources: first events as linear damage has it, then more where they scatter most.

    A sum beyond `hopeless` is off by more than it may be, and only roughly wanted.
    """
    linear = sum(source.linear for source in sources)
    for source in sources:
        source.sample(int(np.clip(N_FIRST * source.linear / linear if linear > 0.0 else 0.0, *FEW)))
    while sources and sum(source.n for source in sources) < MAX_EVENTS:
        total, se = sum(source.mean for source in sources), _se(sources)
        if 1.96 * se <= (0.2 if total > hopeless else 0.4 * tol_rel) * (total + least):
            break
        max(sources, key=lambda source: source.se**2 / source.n).sample(N_MORE)
    mse = {cause: sum(s.mean for s in sources if s.cause == cause) for cause in CAUSES if any(s.cause == cause for s in sources)}
    by_layer = {layer: sum(s.mean for s in sources if s.layer == layer) for layer in dict.fromkeys(s.layer for s in sources)}
    chips, n_events = sum(s.chip_variance for s in sources), sum(s.n for s in sources)
    return EventSum(mse=mse, by_layer=by_layer, mse_se=_se(sources), chip_variance=chips, n_events=n_events)


def _se(sources: Sequence[Source]) -> float:
    return float(np.sqrt(sum(source.se**2 for source in sources)))
