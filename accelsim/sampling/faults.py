"""Trials with rare faults: whether they are drawn by importance, how many count, and how chips differ.

Kish's number of effective events, (sum x)^2 / sum x^2 of what trials add, says how many equal ones they are worth: a run that rests on
a few is not ended. Chips differ by what lasts. Where reads differ too, a few trials are read again on the same chip: losses of both reads
have the variance over chips as their covariance.
"""

from dataclasses import dataclass

import numpy as np

from accelsim.placement import Plan
from accelsim.prediction.event_sources import damage_scales
from accelsim.prediction.events import without_faults
from accelsim.response.linear import respond
from accelsim.response.probes import n_probes_for
from accelsim.sampling.importance import Importance, importance_of
from accelsim.sampling.record import Record
from accelsim.sampling.trials import TrialRunner, is_random
from workloads.network import Network
from workloads.operators.base import Array
from workloads.samples import Samples

ENOUGH_EVENTS = 100.0
N_LOOKED_AT = 12
"""Faults of each bit that are run to see how much of their linear damage they do."""
N_AGAIN = 64
AGAIN = 1 << 30
"""The first number of the trials whose reads are taken a second time."""
LEVELS = {"0.05": 0.05, "0.25": 0.25, "0.5": 0.5, "0.75": 0.75, "0.95": 0.95}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipSpread:
    """Standard deviation and quantiles of the MSE over chips."""

    sd: float
    quantiles: dict[str, float]


def rare_faults(plan: Plan, graph: Network, samples: Samples, *, seed: int) -> Importance | None:
    """Return the importance of stored weights' faults where plain trials would meet too few."""
    if not any(layer.is_digital and layer.site.is_sparse for layer in plan.layers):
        return None
    n_out = int(np.prod(graph.nodes[graph.output].shape))
    healthy = without_faults(plan)
    response = respond(healthy, graph, samples, seed=seed, n_probes=n_probes_for(n_out, len(samples)))
    scales = damage_scales(plan, healthy, graph, samples, response, seed=seed, n=N_LOOKED_AT)
    return importance_of(plan, response, scales)


def effective_events(record: Record) -> float:
    """Return how many equal ones the trials' additions are worth: of faults by importance, else what is above the least loss."""
    by_importance = np.isfinite(record.bases)
    added = record.losses - np.where(by_importance, record.bases, record.losses.min(initial=np.inf))
    squares = float(np.sum(added**2))
    return float(np.sum(np.abs(added)) ** 2 / squares) if squares > 0.0 else float(len(added))


def read_again(plan: Plan, runner: TrialRunner, record: Record) -> Array | None:
    """Return the losses of the first trials' chips at other reads; None where only one of chips and reads differs."""
    both = is_random(plan, fresh=False) and _is_fresh(plan)
    if not both or runner.importance is not None or not record.n_trials:
        return None
    n = min(N_AGAIN, record.n_trials)
    return np.array([runner.run(t, control=False, reads=AGAIN + t).loss for t in range(n)])


def _is_fresh(plan: Plan) -> bool:
    """Whether some memory's faults are fresh at each inference."""
    for layer in plan.layers:
        if layer.is_digital and getattr(layer.site, "is_fresh", False):
            return True
        if layer.buffers is not None and any(site.errs and site.is_fresh for _, site in layer.buffers.sites()):
            return True
    return False


def spread_over_chips(plan: Plan, record: Record, again: Array | None) -> ChipSpread:
    """Return how chips differ: the losses' spread, less what is fresh at each read."""
    losses = record.losses
    if not len(losses):
        return ChipSpread(sd=np.nan, quantiles=dict.fromkeys(LEVELS, np.nan))
    if np.all(np.isfinite(record.bases)):
        return _weighted(plan, record)
    mean, sd = float(losses.mean()), float(losses.std(ddof=1)) if len(losses) > 1 else np.nan
    own = sd
    if not is_random(plan, fresh=False) and _is_fresh(plan):
        own = 0.0
    elif again is not None:
        own = min(float(np.sqrt(max(np.cov(losses[: len(again)], again)[0, 1], 0.0))), sd)
    shrunk = mean + (losses - mean) * (own / sd if sd > 0.0 else 1.0)
    return ChipSpread(sd=own, quantiles={name: float(np.quantile(shrunk, level)) for name, level in LEVELS.items()})


def _weighted(plan: Plan, record: Record) -> ChipSpread:
    """Return the spread where faults are drawn by importance: losses with faults at their weight, and what is left at those without."""
    lasting = any(layer.is_digital and layer.site.is_sparse and not getattr(layer.site, "is_fresh", False) for layer in plan.layers)
    bases = record.bases
    if not lasting:
        sd = float(bases.std(ddof=1)) if np.ptp(bases) > 0.0 else 0.0
        return ChipSpread(sd=sd, quantiles={n: float(np.quantile(bases, level)) for n, level in LEVELS.items()})
    with_faults = bases + (record.losses - bases) / record.weights
    shares = np.concatenate([record.weights, np.maximum(1.0 - record.weights, 0.0)]) / len(bases)
    values = np.concatenate([with_faults, bases])
    mean = float(shares @ values) / float(shares.sum())
    sd = float(np.sqrt(max(float(shares @ (values - mean) ** 2) / float(shares.sum()), 0.0)))
    order = np.argsort(values)
    sums = np.cumsum(shares[order]) / shares.sum()
    places = {name: min(int(np.searchsorted(sums, level)), len(values) - 1) for name, level in LEVELS.items()}
    return ChipSpread(sd=sd, quantiles={name: float(values[order][at]) for name, at in places.items()})
