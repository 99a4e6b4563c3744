"""Plain Monte-Carlo of ours and of PyTorch on the same network, images and law: what a trial takes, and how its loss scatters."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from accelsim import Accelerator, Network, Plan, Samples, load_embedded, place
from accelsim.response.target import graph_to_output, reference_outputs
from accelsim.sampling.trials import N_POWER_TRIALS, TrialRunner
from benchmarks.clock import cpu_seconds, interleaved
from benchmarks.lenet import lenet
from benchmarks.torch_peer import TorchTrials, torch
from validation.networks import network_and_samples
from workloads.samples import samples_of

OURS, TORCH, TUNED = "accelsim", "PyTorch", "PyTorch, tuned"
HALF_WIDTH, QUANTILE, CONFIDENCE = 0.02, 2.326, 0.98
TURN_S = 0.01
"""A turn has trials for about this long, so that a contender works with its own caches."""
SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Plain Monte-Carlo of somebody: CPU time of a trial, its losses' mean and standard error, and the relative spread of all losses."""

    trial_s: float
    mean: float
    se: float
    spread_rel: float
    n_pilot: int

    @property
    def n_trials(self) -> int:
        """Trials to the interval, those of the pilot among them: (2.326 sd / 0.02 mean)^2."""
        return max(self.n_pilot, math.ceil((QUANTILE * self.spread_rel / HALF_WIDTH) ** 2))

    @property
    def total_s(self) -> float:
        """CPU time to the interval."""
        return self.n_trials * self.trial_s


def known_network(name: str, n_images: int) -> tuple[Network, Samples]:
    """Return a network by name, `lenet` among them, with real images."""
    return (lenet(), load_embedded("fashion_cnn")[1][:n_images]) if name == "lenet" else network_and_samples(name, n_images)


def placed(name: str, n_images: int, *, error_rel: float, clip: bool) -> tuple[Plan, Samples]:
    """Return a network on memristors with a state-independent programming error, and its images."""
    network, samples = known_network(name, n_images)
    chip = Accelerator.preset("memse", set=(f"cell.error_rel={error_rel:g}", f"cell.clip={str(clip).lower()}"))
    return place(network, chip, calibration=samples), samples


def plain_trials(plan: Plan, samples: Samples) -> dict[str, Callable[[], float]]:
    """Return for each contender a function that runs its next trial and returns the loss; PyTorch's where it is installed."""
    graph, images = graph_to_output(plan.graph, None), samples_of(samples.x)  # no labels: nobody counts answers here
    wanted = reference_outputs(plan, graph, images, "float")
    runner = TrialRunner(plan, graph, images, reference=wanted, seed=SEED + 2, control=False)
    counter = iter(range(N_POWER_TRIALS, 1 << 31))  # earlier trials measure power along
    trials: dict[str, Callable[[], float]] = {OURS: lambda: runner.run(next(counter)).loss}
    if torch is not None:
        law = plan.accelerator.cell.programming
        assert law is not None  # `placed` gives every chip one
        network, settings = graph_to_output(plan.network, None), {"error_rel": law.error_rel, "clip": law.clip}  # type: ignore[attr-defined]
        for who in (TORCH, TUNED):
            trials[who] = TorchTrials(network, samples.x, seed=SEED, tuned=who == TUNED, **settings).loss
    return trials


def timed_samplers(plan: Plan, samples: Samples, *, n_turns: int) -> dict[str, Sampler]:
    """Return the contenders, timed in turns. All sample one distribution, so the spread is that of all losses together."""
    trials = plain_trials(plan, samples)
    for trial in trials.values():
        trial()
    n = math.ceil(TURN_S / min(cpu_seconds(trial) for trial in trials.values()))
    losses: dict[str, list[float]] = {who: [] for who in trials}

    def turn(who: str) -> Callable[[], object]:
        return lambda: losses[who].extend(trials[who]() for _ in range(n))

    times = interleaved({who: turn(who) for who in trials}, n=n_turns)
    pooled = np.concatenate(list(losses.values()))
    spread_rel = float(np.std(pooled, ddof=1) / np.mean(pooled))
    return {who: _sampler(np.array(found), times[who] / n, spread_rel) for who, found in losses.items()}


def _sampler(losses: np.ndarray, trial_s: float, spread_rel: float) -> Sampler:
    se = float(np.std(losses, ddof=1) / math.sqrt(len(losses)))
    return Sampler(trial_s=trial_s, mean=float(np.mean(losses)), se=se, spread_rel=spread_rel, n_pilot=len(losses))
