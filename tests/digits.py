"""The digits networks of `make_digits.py`, placed on memristors."""

from functools import cache
from pathlib import Path

import numpy as np

from accelsim.accelerator import Accelerator
from accelsim.placement import Plan, place
from accelsim.prediction.covariance import full_covariance
from accelsim.prediction.sketched import N_TANGENTS, sketch
from accelsim.response.linear import respond
from accelsim.response.target import reference_outputs
from accelsim.sampling.monte_carlo import monte_carlo
from workloads.network import Network
from workloads.onnx_reader import load_onnx
from workloads.operators.base import Array
from workloads.samples import Samples, load_samples

FIXTURES = Path(__file__).parent / "fixtures"
CALIBRATION = slice(100, 164)
JUDGED = slice(0, 8)


@cache
def digits_network(name: str) -> Network:
    """Return `mlp`, `cnn`, `resnet` or `maxpool`."""
    return load_onnx(FIXTURES / f"digits_{name}.onnx")


@cache
def digits_samples() -> Samples:
    """Return the 200 held-out images and labels."""
    return load_samples(FIXTURES / "digits_test.npz")


def judged() -> Samples:
    """Return the eight images that errors are averaged over."""
    return digits_samples()[JUDGED]


def digits_plan(name: str, *assignments: str, error_rel: float = 0.03, clip: bool = True) -> Plan:
    """Return a digits network on the preset `memse`, with this programming error and other assignments."""
    chosen = (f"cell.programming.error_rel={error_rel}", f"cell.programming.clip={str(clip).lower()}", *assignments)
    return place(digits_network(name), Accelerator.preset("memse", set=chosen), calibration=digits_samples()[CALIBRATION])


def wanted_outputs(plan: Plan, samples: Samples) -> Array:
    """Return the float network's outputs `(N, 10)`."""
    return reference_outputs(plan, plan.graph, samples, "float")


def full_mse(plan: Plan, samples: Samples) -> float:
    """Return the MSE by full covariance."""
    mean, covariance = full_covariance(plan, plan.graph, samples)
    variance = np.diagonal(covariance, axis1=1, axis2=2).mean()
    return float(np.mean((mean - wanted_outputs(plan, samples)) ** 2) + variance)


def adjoint_mse(plan: Plan, samples: Samples) -> float:
    """Return the MSE to first order."""
    response = respond(plan, plan.graph, samples, seed=1)
    return float(np.mean((response.mean_output - wanted_outputs(plan, samples)) ** 2) + response.variance)


def sketched_mse(plan: Plan, samples: Samples, *, seed: int = 1, n_tangents: int = N_TANGENTS) -> tuple[float, float]:
    """Return the MSE by statistical linearization, and its standard error."""
    found = sketch(plan, plan.graph, samples, wanted_outputs(plan, samples), seed=seed, n_tangents=n_tangents)
    return found.mse, found.mse_se


def sampled_mse(plan: Plan, samples: Samples, *, rel_se: float, seed: int = 5) -> tuple[float, float]:
    """Return Monte-Carlo's MSE and standard error, which is at most `rel_se` of it."""
    trials = monte_carlo(plan, samples, seed=seed, rel_error=1.95 * rel_se, max_trials=200_000)
    assert trials.mse_se <= rel_se * trials.mse, f"standard error {trials.mse_se / trials.mse:.2%} after {trials.n_trials} trials"
    return trials.mse, trials.mse_se
