"""One prediction against the Monte-Carlo that it spares, to the same interval: 2 % half-width at 98 % confidence.

Plain trials needed are (2.326 sd / 0.02 mean)^2, sd and mean from a pilot that counts; the weights of a trial are shared by all images.
"""

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import as_file
from pathlib import Path

import numpy as np

from accelsim import Accelerator, Plan, Samples, monte_carlo, place, predict
from accelsim.response.target import graph_to_output, reference_outputs
from accelsim.sampling.trials import N_POWER_TRIALS, TrialRunner
from benchmarks.clock import cpu_seconds, interleaved, shown
from benchmarks.torch_peer import TorchTrials, torch
from validation.networks import data_folder, network_and_samples
from workloads.zoo import embedded_names, embedded_path

HALF_WIDTH, QUANTILE, CONFIDENCE = 0.02, 2.326, 0.98
PILOT, TURNS = 100, 3
SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Plain Monte-Carlo of somebody: CPU time of a trial, mean of the pilot's losses, and the relative spread of all pilots' losses."""

    trial_s: float
    mean: float
    spread_rel: float

    @property
    def n_trials(self) -> int:
        """Trials to the interval, the pilot's among them."""
        return max(PILOT, math.ceil((QUANTILE * self.spread_rel / HALF_WIDTH) ** 2))

    @property
    def total_s(self) -> float:
        """CPU time to the interval."""
        return self.n_trials * self.trial_s


def report(name: str, *, n_images: int, error_rel: float) -> None:
    """Print the table of one network."""
    network, samples = network_and_samples(name, n_images)
    chip = Accelerator.preset("memse").with_set(f"cell.error_rel={error_rel:g}")
    plan = place(network, chip, calibration=samples)
    samplers = _samplers(name, plan, samples, error_rel=error_rel)
    predictors = _predictors(plan, samples)
    sampled = monte_carlo(plan, samples, seed=SEED + 1, rel_error=HALF_WIDTH, confidence=CONFIDENCE, threads=1)
    controlled = cpu_seconds(lambda: monte_carlo(plan, samples, seed=SEED + 1, rel_error=HALF_WIDTH, confidence=CONFIDENCE, threads=1))
    print(f"\n{name.upper()}, {len(samples)} images, error_rel {error_rel:g}, clipped; relative MSE {sampled.mse_rel:.3g}")
    for who, one in samplers.items():
        print(f"  plain Monte-Carlo, {who:<10} {shown(one.trial_s):>9} a trial x {one.n_trials} = {shown(one.total_s)}"
              f"; its mean {one.mean / sampled.mse:.3f} of ours with control variate")  # fmt: skip
    print(f"  our Monte-Carlo, control variate {shown(controlled)} for {sampled.n_trials} trials, worth {sampled.variance_factor:.3g} each")
    for method, seconds in predictors.items():
        found = predict(plan, samples, seed=SEED, method=method)  # type: ignore[arg-type]
        against = ", ".join(f"{one.total_s / seconds:.3g}x {who}'s" for who, one in samplers.items())
        used = f" ({found.method})" if method == "auto" else ""
        valid = "" if found.valid else ", not valid by its own estimate"
        print(f"  predict, {method + used:<20} {shown(seconds):>9}: faster than plain Monte-Carlo {against}; than ours with control "
              f"variate {controlled / seconds:.3g}x; MSE {found.mse / sampled.mse:.3f} of its{valid}")


def _samplers(name: str, plan: Plan, samples: Samples, *, error_rel: float) -> dict[str, Sampler]:
    """Return the plain samplers, timed in turns; trial numbers start where power is no longer measured along."""
    graph = graph_to_output(plan.graph, None)
    wanted = reference_outputs(plan, graph, samples, "float")
    runner = TrialRunner(plan, graph, samples, reference=wanted, seed=SEED + 2, control=False)
    counter = iter(range(N_POWER_TRIALS, 1 << 31))
    losses: dict[str, Callable[[], float]] = {"accelsim": lambda: runner.run(next(counter)).loss}
    with ExitStack() as stack:
        if torch is not None:
            path = stack.enter_context(as_file(embedded_path(name))) if name in embedded_names() else _external(name)
            try:
                peer = TorchTrials(path, samples.x, error_rel=error_rel, g_max_siemens=plan.accelerator.cell.g_max_siemens, seed=SEED)
                losses["PyTorch"] = peer.loss
            except NotImplementedError as error:
                print(f"\n{name}: {error}")
    found: dict[str, list[float]] = {who: [] for who in losses}

    def kept(who: str) -> Callable[[], object]:
        return lambda: found[who].append(losses[who]())

    times = interleaved({who: kept(who) for who in losses}, n=PILOT)
    pooled = np.concatenate(list(found.values()))  # all sample one distribution, and a spread from few trials scatters
    spread_rel = float(np.std(pooled, ddof=1) / np.mean(pooled))
    return {who: Sampler(trial_s=times[who], mean=float(np.mean(values)), spread_rel=spread_rel) for who, values in found.items()}


def _external(name: str) -> Path:
    return data_folder() / "models" / f"{name}.onnx"


def _predictors(plan: Plan, samples: Samples) -> dict[str, float]:
    """Return the median CPU time of each method, whole calls with attribution, power and accuracy."""

    def call(method: str) -> Callable[[], object]:
        return lambda: predict(plan, samples, seed=SEED, method=method)  # type: ignore[arg-type]

    return interleaved({method: call(method) for method in ("adjoint", "sketched", "auto")}, n=TURNS)
