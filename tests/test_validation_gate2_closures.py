"""Gate 2: the closures against Monte-Carlo with a control variate, on networks trained on scikit-learn's digits, eight images.

Measured with a standard error of at most 0.05 % (`-m slow`), error_rel 0.01, 0.03, 0.1, clipped and not: full covariance is within
0.02 % on the MLP and 0.10 % on the CNN (at a relative MSE of 8). On the residual network, clipped, SE 0.3 %: -0.0 %, -1.1 %, -3.0 %, -4.3 %
at relative MSE 0.002, 0.025, 0.20, 1.1, where pre-activations are not Gaussian any more.
"""

import numpy as np
import pytest

from accelsim.prediction.predict import predict
from tests.digits import adjoint_mse, digits_plan, full_mse, judged, sampled_mse, sketched_mse, wanted_outputs

ERRORS = (0.01, 0.03, 0.1)
FULL_LIMIT = 0.003
"""What full covariance may be off by, Monte-Carlo's three standard errors aside."""
RESIDUAL_LIMIT = 0.02
"""The same for the residual network: after three blocks pre-activations are not exactly Gaussian (theory: -1.5 % at relative MSE 0.11)."""

each_clip = pytest.mark.parametrize("clip", [True, False], ids=["clipped", "unclipped"])
each_error = pytest.mark.parametrize("error_rel", ERRORS)


def check_full(name: str, *, error_rel: float, clip: bool, rel_se: float, limit: float = FULL_LIMIT) -> None:
    plan = digits_plan(name, error_rel=error_rel, clip=clip)
    found, (truth, se) = full_mse(plan, judged()), sampled_mse(plan, judged(), rel_se=rel_se)
    off = found / truth - 1.0
    assert abs(off) < limit + 3.0 * se / truth, f"full covariance is off by {off:+.3%} (+- {se / truth:.3%})"


@each_clip
@each_error
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_full_covariance_agrees_with_monte_carlo(name: str, error_rel: float, clip: bool) -> None:
    check_full(name, error_rel=error_rel, clip=clip, rel_se=0.003)


@pytest.mark.slow
@each_clip
@each_error
@pytest.mark.parametrize("name", ["mlp", "cnn", "maxpool"])
def test_full_covariance_agrees_with_monte_carlo_to_a_third_of_a_percent(name: str, error_rel: float, clip: bool) -> None:
    check_full(name, error_rel=error_rel, clip=clip, rel_se=0.0005)


@pytest.mark.parametrize("error_rel", [0.003, 0.01])
def test_full_covariance_follows_a_residual_network(error_rel: float) -> None:
    """A guard only: the gate itself is the next test, which this network does not pass."""
    check_full("resnet", error_rel=error_rel, clip=True, rel_se=0.002, limit=RESIDUAL_LIMIT)


NOT_MET = pytest.mark.xfail(strict=True, raises=AssertionError, reason="gate 2 is not met: 1.1 % low, pre-activations are not Gaussian")


@pytest.mark.parametrize("error_rel", [0.003, pytest.param(0.01, marks=NOT_MET)])
def test_full_covariance_agrees_with_monte_carlo_on_a_residual_network(error_rel: float) -> None:
    check_full("resnet", error_rel=error_rel, clip=True, rel_se=0.002)


@each_clip
@each_error
@pytest.mark.parametrize("name", ["mlp", "cnn", "maxpool"])
def test_sketches_agree_with_full_covariance(name: str, error_rel: float, clip: bool) -> None:
    """Four sketches: within 1 %, plus three of their standard errors; there the Gaussian closure is right."""
    plan = digits_plan(name, error_rel=error_rel, clip=clip)
    found = np.array([sketched_mse(plan, judged(), seed=seed) for seed in range(4)])
    full, mean, se = full_mse(plan, judged()), found[:, 0].mean(), np.sqrt(np.mean(found[:, 1] ** 2) / len(found))
    assert abs(mean / full - 1.0) < 0.01 + 3.0 * se / full, f"sketched is off by {mean / full - 1.0:+.2%} (+- {se / full:.2%})"


@each_clip
@pytest.mark.parametrize(("name", "error_rel"), [
    ("mlp", 0.01), ("mlp", 0.03), ("mlp", 0.05), ("cnn", 0.003), ("cnn", 0.01), ("maxpool", 0.01), ("maxpool", 0.03),
    ("resnet", 0.003), ("resnet", 0.01), ("resnet", 0.02),
])  # fmt: skip
def test_the_adjoint_is_within_three_percent_or_says_so(name: str, error_rel: float, clip: bool) -> None:
    """Up to a relative MSE of 0.1; beyond, its own estimate must not be far below what it is off by (three standard errors)."""
    plan = digits_plan(name, error_rel=error_rel, clip=clip)
    answer = predict(plan, judged(), seed=3, method="adjoint", attribution=False)
    truth, se = sampled_mse(plan, judged(), rel_se=0.003)
    off, noise = abs(answer.mse / truth - 1.0), 3.0 * (se / truth + answer.details["excess_se"])
    assert answer.mse == pytest.approx(adjoint_mse(plan, judged()), rel=1e-9)
    limit = 0.03 if answer.mse_rel <= 0.1 else 0.0
    estimate = answer.rel_error_estimate
    assert off < max(limit + 3.0 * se / truth, estimate + noise), f"off by {off:.2%}, estimated {estimate:.2%}"


def test_a_network_of_digits_is_a_fair_test() -> None:
    """At least six images, and outputs that differ."""
    assert len(judged()) >= 6
    for name in ("mlp", "cnn", "resnet", "maxpool"):
        assert wanted_outputs(digits_plan(name), judged()).std() > 1.0
