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
from accelsim.prediction.event_sources import Source
from accelsim.prediction.question import Question, Verdict
from accelsim.response.linear import Response
from accelsim.response.target import mean_weights
from accelsim.stored_weights import WordSite

N_FIRST, N_MORE, MAX_EVENTS, ENOUGH_IF_JOINT = 512, 128, 16_384, 2_048
"""Events at first, further ones, and the most in all, as many as they cost; the last where passes with all faults could follow."""
FEW = 12, 128
"""Least and most events of a source that are sampled before the scatter decides."""
INTERACTION = 0.3
"""Relative error of (1) for each unit of relative MSE by faults: they meet in nonlinearities; 3 % at 0.09 and 45 % at 2.4 were seen."""
ALIKE = {"memory_weights": 0.03, "memory_activations": 1.0, "memory_partial_sums": 1.0}
"""Share of `EventSum.meeting` that is feared: of values, which are rectified, all (17 % at n = 0.4 were seen); of weights 6 % at 12."""
CAUSES = ("stuck", "memory_weights", "memory_activations", "memory_partial_sums")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSum:
    """The sum of (1) by cause and by layer, its standard error, the variance over chips by lasting faults, and how many events were run.

    `n_faults` is how many equal faults at a time would scatter as much, n = (sum p_e D_e)^2 / sum p_e D_e^2. `meeting` is what wrong
    bits may add by changing outputs alike, of which the network of mean values knows little: n equal ones add n times their sum at most.
    """

    mse: dict[str, float]
    by_layer: dict[str, float]
    mse_se: float
    chip_variance: float
    n_faults: float
    meeting: float
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


def with_faults(
    question: Question, response: Response, healthy: Verdict, healthy_plan: Plan, sources: Sequence[Source], *, patient: bool = True
) -> Verdict:
    """Return the verdict on a plan with faults from that on the same plan without: biases of the mean, and the sum (1).

    `sources` are those of the faults, which are sampled here; not `patient`: roughly, where many events would be needed.
    """
    found = event_sum(question, sources, least=healthy.mse, patient=patient)
    faults = found.total
    pooled = float(question.wanted.var())
    bias2 = float(np.mean((response.mean_output - question.wanted) ** 2))
    variance = healthy.variance + faults
    mse = bias2 + variance
    scale = variance / healthy.variance if healthy.variance > 0.0 else 1.0
    interaction = found.meeting + INTERACTION * faults**2 / max(pooled, 1e-300)
    unsure = healthy.rel_error_estimate * healthy.mse + 1.96 * found.mse_se + interaction
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
            "n_faults": found.n_faults,
            **{f"faults of {layer}": mse for layer, mse in found.by_layer.items()}, "fault_chip_variance": found.chip_variance,
            "healthy_variance": healthy.variance,
        },
    )  # fmt: skip


def event_sum(question: Question, sources: Sequence[Source], *, least: float, patient: bool = True) -> EventSum:
    """Return the sum (1) of a plan's faults with a standard error that is small beside an MSE of at least `least`."""
    hopeless = 2.0 * question.tol_rel * float(question.wanted.var()) / INTERACTION
    most = MAX_EVENTS if patient else ENOUGH_IF_JOINT
    return sampled_sum(sources, tol_rel=question.tol_rel, least=least, hopeless=hopeless, most=most)


def sampled_sum(
    sources: Sequence[Source], *, tol_rel: float, least: float, hopeless: float = np.inf, most: int = MAX_EVENTS
) -> EventSum:
    """Return the sum over sources: first events as linear damage has it, then more where they scatter most, at most as many as `most` cost.

    A sum beyond `hopeless` is off by more than it may be, and only roughly wanted.
    """
    linear = sum(source.linear for source in sources)
    for source in sources:
        source.sample(int(np.clip(N_FIRST * source.linear / linear if linear > 0.0 else 0.0, *FEW)))
    while sources and sum(source.n * source.effort for source in sources) < most:
        total, se = sum(source.mean for source in sources), _se(sources)
        if 1.96 * se <= (0.2 if total > hopeless else 0.4 * tol_rel) * (total + least):
            break
        worst = max(sources, key=lambda source: source.se**2 / (source.n * source.effort))
        worst.sample(int(N_MORE * min(1.0 / worst.effort, 4.0)))
    mse = {cause: sum(s.mean for s in sources if s.cause == cause) for cause in CAUSES if any(s.cause == cause for s in sources)}
    by_layer = {layer: sum(s.mean for s in sources if s.layer == layer) for layer in dict.fromkeys(s.layer for s in sources)}
    chips, n_events = sum(s.chip_variance for s in sources), sum(s.n for s in sources)
    alike = [(share, [s for s in sources if s.cause.startswith(cause)]) for cause, share in ALIKE.items()]
    return EventSum(
        mse=mse,
        by_layer=by_layer,
        mse_se=_se(sources),
        chip_variance=chips,
        n_faults=_n_faults(sources),
        meeting=sum(share * _n_faults(own) * sum(s.mean for s in own) for share, own in alike),
        n_events=n_events,
    )


def _n_faults(sources: Sequence[Source]) -> float:
    squares = sum(source.square for source in sources)
    return sum(source.mean for source in sources) ** 2 / squares if squares > 0.0 else 0.0


def _se(sources: Sequence[Source]) -> float:
    return float(np.sqrt(sum(source.se**2 for source in sources)))
