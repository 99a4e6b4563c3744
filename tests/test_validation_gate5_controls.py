"""Gate 5: theories that are wrong in a classical way fail on the digits networks, by |z| > 10 and a third of the known size.

Each mistake is made here, in the test, by replacing one step of the right theory; the right one passes the same comparison.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from accelsim.prediction import covariance as full
from accelsim.prediction.covariance import _Image
from accelsim.prediction.tangents import Forward, State
from tests.digits import digits_plan, full_mse, judged, sampled_mse, sketched_mse
from workloads.network import Node
from workloads.operators.base import Array, LocalMap, Operator, Shape
from workloads.operators.matrix import MatrixOperator
from workloads.operators.merge import Add

N_SKETCHES = 4


@dataclass(frozen=True, kw_only=True)
class Excess:
    """What a theory is off by from Monte-Carlo: relative size, and in standard errors."""

    size: float
    z: float


@cache
def truth_of(name: str, error_rel: float) -> tuple[float, float]:
    return sampled_mse(digits_plan(name, error_rel=error_rel), judged(), rel_se=0.0025)


def excess(mse: float, name: str, error_rel: float, *, own_se: float = 0.0) -> Excess:
    truth, se = truth_of(name, error_rel)
    return Excess(size=mse / truth - 1.0, z=(mse - truth) / float(np.hypot(se, own_se)))


def positions_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Square a kernel's gradient at each position, then add."""
    right = full.kernel_noise

    def independent(operator: MatrixOperator, variance: Array, second: Array) -> Array:
        noise = right(operator, variance, second)
        return noise * np.eye(noise.shape[-1])

    monkeypatch.setattr(full, "kernel_noise", independent)


def hard_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pass covariances between two ReLUs where both means are positive, and nowhere else."""

    def step(operator: Operator, mean: Array, covariance: Array, shape: Shape) -> Array:
        on = (mean > 0.0).astype(np.float64)
        return covariance * np.outer(on, on)

    monkeypatch.setattr(full, "_ramp_covariance", step)


def skips_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the covariances of a residual addition's two branches, without those between them."""
    right = _Image._add

    def apart(self: _Image, i: int, node: Node) -> None:
        if isinstance(node.operator, Add):
            for pair in (node.inputs, node.inputs[::-1]):
                self.blocks.pop(pair, None)
        right(self, i, node)

    monkeypatch.setattr(_Image, "_add", apart)


@pytest.mark.parametrize(("mistake", "name", "error_rel", "at_least"), [
    (positions_independent, "cnn", 0.03, 0.03),  # a third of the -9 % of small networks
    (positions_independent, "resnet", 0.01, 0.03),
    (hard_step, "resnet", 0.03, 0.019),  # a third of the -5.6 % of a network
    (skips_independent, "resnet", 0.01, 0.063),  # a third of the smaller, -19 %, of -19 % to +44 %
])  # fmt: skip
def test_a_classical_mistake_in_full_covariance_is_found_out(
    mistake: Callable[[pytest.MonkeyPatch], None], name: str, error_rel: float, at_least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = full_mse(digits_plan(name, error_rel=error_rel), judged())
    mistake(monkeypatch)
    wrong = full_mse(digits_plan(name, error_rel=error_rel), judged())
    found = excess(wrong, name, error_rel)
    assert abs(found.z) > 10, found
    assert abs(found.size) > at_least, found
    assert abs(wrong / right - 1.0) > at_least


@pytest.mark.parametrize(("name", "error_rel"), [("mlp", 0.03), ("cnn", 0.01), ("cnn", 0.03), ("resnet", 0.01)])
def test_theory_without_clipping_is_found_out_on_clipped_devices(name: str, error_rel: float) -> None:
    """At least a third of the -6 % to +99 % measured before."""
    found = excess(full_mse(digits_plan(name, error_rel=error_rel, clip=False), judged()), name, error_rel)
    assert abs(found.z) > 10, found
    assert abs(found.size) > 0.02, found


RESIDUAL_AT = ("resnet", 0.02)
"""Relative MSE 0.085, between the 0.03 and 0.11 at which -5 % and -11 % were measured on resnet8_cifar10."""


def mean_sketch() -> tuple[float, float]:
    """Return the mean of sketches and its standard error."""
    name, error_rel = RESIDUAL_AT
    found = [sketched_mse(digits_plan(name, error_rel=error_rel), judged(), seed=seed, n_tangents=64)[0] for seed in range(N_SKETCHES)]
    return float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(N_SKETCHES))


def test_a_sketched_remainder_that_is_independent_by_position_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remainder of an operator, shuffled over the samples at every position on its own, loses what averaging sums."""
    right, right_se = mean_sketch()
    through, rng = Forward._through_operator, np.random.default_rng(1)

    def apart(self: Forward, i: int, arriving: list[State]) -> tuple[State, LocalMap]:
        state, gain = through(self, i, arriving)
        tangents, left, before = state.tangents, state.left, arriving[0].tangents
        assert not any(part is None for part in (tangents, left, before))
        remainder = np.stack([t - gain.push((b,)) for t, b in zip(tangents, before)])  # type: ignore[arg-type]
        moved = rng.permuted(remainder, axis=0) - remainder
        return State(mean=state.mean, variance=state.variance, tangents=tangents + moved, left=left + moved), gain

    monkeypatch.setattr(Forward, "_through_operator", apart)
    wrong, wrong_se = mean_sketch()
    found = excess(wrong, *RESIDUAL_AT)
    assert found.z < -10, found
    assert found.size < -0.03, found
    assert (right - wrong) / np.hypot(right_se, wrong_se) > 3, "the mistake itself, apart from what the sketch is off by"


@pytest.mark.parametrize(("name", "error_rel"), [("mlp", 0.03), ("cnn", 0.01), ("cnn", 0.03), ("resnet", 0.01)])
def test_the_right_theory_passes_the_same_comparison(name: str, error_rel: float) -> None:
    """Within 5 standard errors of 0.25 %; the residual network's closure is off by about 1 %."""
    found = excess(full_mse(digits_plan(name, error_rel=error_rel), judged()), name, error_rel)
    assert abs(found.size) < (0.02 if name == "resnet" else 0.005), found
    assert abs(found.z) < 10
