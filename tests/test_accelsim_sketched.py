"""Statistical linearization with sampled remainders: right where Gaussian closures are not, and as sure as it says."""

from functools import cache

import numpy as np
import pytest

from accelsim.placement import Plan
from accelsim.prediction import sketched as module
from accelsim.prediction.methods import MAX_SAMPLES, _mean_of, sketched
from accelsim.prediction.question import Question
from accelsim.prediction.sketched import sketch
from accelsim.prediction.tangents import Forward, State
from accelsim.response.linear import respond
from accelsim.response.passes import push
from accelsim.sampling.programmings import Programmer
from tests.digits import digits_plan, digits_samples, full_mse, judged, sampled_mse, sketched_mse, wanted_outputs
from workloads.network import to_lanes
from workloads.operators.base import Array
from workloads.samples import Samples

N_SEEDS = 16
LARGE = {"error_rel": 0.03, "clip": True}
"""Relative MSE 0.2 on the residual network, where full covariance is 3 % low."""


@cache
def sketches(name: str) -> Array:
    """MSE and standard error of sketches with as many seeds, `(N_SEEDS, 2)`."""
    return np.array([sketched_mse(digits_plan(name, **LARGE), judged(), seed=s) for s in range(N_SEEDS)])  # type: ignore[arg-type]


@cache
def truth(name: str) -> tuple[float, float]:
    return sampled_mse(digits_plan(name, **LARGE), judged(), rel_se=0.004)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["mlp", "cnn", "maxpool", "resnet"])
def test_their_mean_is_monte_carlos_at_large_noise(name: str) -> None:
    """Within 1.5 % (gains stem from the same few samples) plus four standard errors of both."""
    found, (mse, se) = sketches(name)[:, 0], truth(name)
    off = found.mean() / mse - 1.0
    assert abs(off) < 0.015 + 4.0 * np.hypot(se, found.std(ddof=1) / np.sqrt(N_SEEDS)) / mse, f"off by {off:+.2%}"


def test_the_gaussian_closure_fails_the_same_comparison() -> None:
    """The negative control: full covariance, which has no sampling error of its own."""
    mse, se = truth("resnet")
    off = full_mse(digits_plan("resnet", **LARGE), judged()) / mse - 1.0  # type: ignore[arg-type]
    assert off < -0.015 - 2.0 * se / mse


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet"])
def test_they_scatter_as_they_say(name: str) -> None:
    """Root mean square of z over sixteen seeds: 1 but for the few halves that each standard error stands on."""
    found = sketches(name)
    z = (found[:, 0] - found[:, 0].mean()) / np.sqrt(np.mean(found[:, 1] ** 2))
    assert 0.5 < z.std(ddof=1) < 1.6


def test_remainders_of_other_samples_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of (3), which needs the remainders of the very sample: each image's are those of another one."""
    right = module._Worker._moments

    def of_others(self: module._Worker, point: Array, total: Array, left: Array, tally: module._Tally, wanted: Array) -> module._Chunk:
        return right(self, point, total, np.roll(left, 1, axis=0), tally, wanted)

    monkeypatch.setattr(module._Worker, "_moments", of_others)
    wrong = np.array([sketched_mse(digits_plan("resnet", **LARGE), judged(), seed=s)[0] for s in range(4)])  # type: ignore[arg-type]
    mse, se = truth("resnet")
    assert wrong.mean() / mse - 1.0 < -0.015 - 4.0 * np.hypot(se, wrong.std(ddof=1) / 2.0) / mse


def test_samples_less_their_remainders_are_linear_in_the_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """(1) by hand on the fully connected network: L = sum_l A_l E_l (mu + T_l), A_l by the gains, for each sample and output."""
    plan = digits_plan("mlp", error_rel=0.03)
    forward, fresh = Forward(plan, plan.graph, seed=1, n_tangents=3), {}
    right = forward._kernel_noise

    def kernel_noise(i: int, *rest: object) -> Array:
        noise = right(i, *rest)  # type: ignore[arg-type]
        fresh[i] = noise.copy()
        return noise

    monkeypatch.setattr(forward, "_kernel_noise", kernel_noise)
    trace = forward.run(to_lanes(four().x), 0)
    expected = np.stack([push(trace.point, {}, {}, {i: v[k] for i, v in fresh.items()}) for k in range(3)])
    found = np.stack([trace.output.linear(k) for k in range(3)])  # type: ignore[misc]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def four() -> Samples:
    return digits_samples()[:4]


def test_signs_of_an_image_leave_the_law_of_its_samples_alone() -> None:
    """First-layer noise of every image: variance `sum_j V_j x_j^2`, by 4000 samples; and none between images that share a draw."""
    plan = digits_plan("mlp", error_rel=0.03)
    forward = Forward(plan, plan.graph, seed=1, n_tangents=4000)
    images = to_lanes(four().x)
    first = plan.layers[0]
    state = forward.run(images, 0)
    x = state.point.matrix_inputs[first.node]
    samples = forward._kernel_noise(
        first.node, State(mean=x), forward._signs(np.empty((first.operator.n_columns, 4), np.float32), 77, 0), 0
    ).reshape(4000, first.operator.n_columns, 4)
    expected = first.operator.multiply(forward.moments[first.node].variance, x**2).reshape(-1, 4)
    np.testing.assert_allclose((samples**2).mean(axis=0), expected, rtol=6 * np.sqrt(2 / 4000))
    scaled = samples / np.sqrt(expected)
    between = np.mean([abs(np.mean(scaled[..., a] * scaled[..., b])) for a in range(4) for b in range(a)])
    assert between < 0.15, "rows of different images share a draw, but not its signs"


def test_repeated_sketches_are_a_mixture() -> None:
    """Mean, covariance and MSE of two sketches are those of the mixture of their laws; the standard error is that of the mean."""
    plan = digits_plan("cnn")
    question = question_of(plan)
    found = [sketch(plan, plan.graph, judged(), question.wanted, seed=s) for s in (1, 2)]
    both = _mean_of(question, found)
    one, three = (sketch(plan, plan.graph, judged(), question.wanted, seed=9, n_tangents=n) for n in (12, 36))
    assert _mean_of(question, [one, three]).mse == pytest.approx(0.25 * one.mse + 0.75 * three.mse)
    np.testing.assert_allclose(both.mse, np.mean([f.mse for f in found]), rtol=1e-12)
    second = np.mean([f.covariance + np.einsum("ni,nj->nij", f.mean_output, f.mean_output) for f in found], axis=0)
    assert both.covariance is not None
    np.testing.assert_allclose(both.covariance + np.einsum("ni,nj->nij", both.mean_output, both.mean_output), second, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(both.mse_se, 0.5 * np.hypot(*(f.mse_se for f in found)), rtol=1e-12)


def question_of(plan: Plan, tol_rel: float = 0.05) -> Question:
    return Question(
        plan=plan, programmer=Programmer(plan, seed=1), errors=(), graph=plan.graph, samples=judged(), seed=1,
        wanted=wanted_outputs(plan, judged()), tol_rel=tol_rel, reference="float",
    )  # fmt: skip


def test_they_are_repeated_until_the_interval_is_as_narrow_as_asked() -> None:
    plan = digits_plan("resnet", **LARGE)  # type: ignore[arg-type]
    response = respond(plan, plan.graph, judged(), seed=1)
    wide, narrow, hopeless = (sketched(question_of(plan, tol), response) for tol in (0.2, 0.05, 0.002))
    assert wide.details["n_samples"] == hopeless.details["n_samples"] == 12
    assert 12 < narrow.details["n_samples"] <= MAX_SAMPLES
    assert narrow.rel_error_estimate <= 0.06, "the last interval may be a little wider than the first one promised"
    assert hopeless.rel_error_estimate > 0.011


def test_probes_and_exact_outputs_agree() -> None:
    """Ten outputs by sixteen random combinations: within four of the standard errors they state."""
    plan = digits_plan("cnn", error_rel=0.01, clip=False)
    by_probes, exact = (sketch(plan, plan.graph, judged(), wanted_outputs(plan, judged()), seed=1, n_probes=n) for n in (16, 0))
    assert by_probes.covariance is None
    difference = by_probes.variance_by_image.mean() - exact.variance_by_image.mean()
    assert abs(difference) < 4 * np.hypot(by_probes.mse_se, exact.mse_se)


def test_a_single_sample_is_refused() -> None:
    plan = digits_plan("mlp")
    with pytest.raises(ValueError, match="n_tangents: need at least 2, got 1"):
        sketch(plan, plan.graph, judged(), wanted_outputs(plan, judged()), seed=1, n_tangents=1)
