"""The control variate of a run: what is known of its mean, and whether it is worth its time.

The linear response to a programming costs about two trials (`trials.py`). The first block of trials has it, as mirrored pairs, and
decides for all that follow: pairs, the control alone, or neither.
"""

from typing import Literal

import numpy as np

from accelsim.placement import Plan
from accelsim.response.linear import respond
from accelsim.response.probes import n_probes_for
from accelsim.sampling.estimate import ControlMean, adjusted_losses, pairs_pay
from accelsim.sampling.programmings import Programmer
from accelsim.sampling.record import Record
from workloads.network import Network
from workloads.operators.base import Array
from workloads.samples import Samples

Scheme = Literal["pairs", "control", "plain"]
BLOCK = 40
"""Trials between two looks at the clock, the checkpoint and the keyboard; the first block decides."""
COST = 3.0
"""What a trial with control costs, in trials without (docs, Sampling)."""
MAX_BYTES = 3 * 2**30


def control_mean(plan: Plan, graph: Network, samples: Samples, wanted: Array, *, seed: int) -> tuple[ControlMean | None, str]:
    """Return the mean of the control, with its standard error where random probes stand for the outputs, or None and why not."""
    need = 4 * plan.activation_elements() * len(samples)
    if need > MAX_BYTES:
        return None, f"control variate off: it would keep {need / 2**30:.1f} GiB of activations; give fewer images"
    programmer = Programmer(plan, seed=seed)
    n_probes = n_probes_for(wanted.shape[1], len(samples))
    response = respond(plan, graph, samples, seed=seed, n_probes=n_probes, errors=programmer.checked_errors() if n_probes else ())
    programming = sum(layer.programming for layer in response.layers.values())
    return ControlMean(mean=float(np.mean((response.mean_output - wanted) ** 2)) + programming, se=response.variance_se), ""


def scheme_of(record: Record, known: ControlMean | None) -> Scheme:
    """Return how the next trials are done, by the first block."""
    if known is None:
        return "plain"
    if record.n_trials < BLOCK:
        return "pairs"
    losses, controls = record.losses[:BLOCK], record.controls[:BLOCK]
    paired = pairs_pay(losses, controls, known)
    _, factor = adjusted_losses(losses, controls, known.exactly(), paired=paired)
    if factor < COST:
        return "plain"
    return "pairs" if paired else "control"


def in_words(record: Record, known: ControlMean | None, reason: str) -> str:
    """Return what a report says of the control."""
    if known is None:
        return reason
    if scheme_of(record, known) == "plain":
        return f"given up after {BLOCK} trials: it would save less than the factor {COST:g} that it costs"
    return "on" if known.se == 0.0 else "on; its mean by random probes, their standard error included"
