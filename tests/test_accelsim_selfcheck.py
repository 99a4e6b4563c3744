"""The self check of the predictors: its excess is Monte-Carlo's over first order, whatever the causes and however J e is known."""

from dataclasses import replace

import numpy as np
import pytest

from accelsim.placement import Plan
from accelsim.prediction.question import Question
from accelsim.prediction.selfcheck import SelfCheck, check_linear
from accelsim.response.linear import Response, respond
from accelsim.sampling.monte_carlo import monte_carlo
from accelsim.sampling.programmings import N_CHECKED, Programmer
from tests.digits import adjoint_mse, digits_plan, judged, wanted_outputs
from workloads.network import to_lanes
from workloads.operators.matrix import MatrixOperator
from workloads.walk import rewalk, run, walk

READ_NOISE = ("cell.read_noise.kind=state_independent", "cell.read_noise.error_rel=0.03")
EVERYTHING = (*READ_NOISE, "mapping.levels=32", "mapping.bias=device")


def asked(plan: Plan, *, seed: int = 1) -> tuple[Question, Response]:
    samples, programmer = judged(), Programmer(plan, seed=seed)
    errors = tuple(programmer.checked_errors())
    response = respond(plan, plan.graph, samples, seed=seed, errors=errors, view=programmer.mean)
    question = Question(
        plan=plan, programmer=programmer, errors=errors, graph=plan.graph, samples=samples, seed=seed,
        wanted=wanted_outputs(plan, samples), tol_rel=0.05, reference="float",
    )  # fmt: skip
    return question, response


def pooled(plan: Plan, n_seeds: int) -> tuple[float, float]:
    found = [check_linear(*asked(plan, seed=seed)) for seed in range(n_seeds)]
    return float(np.mean([c.excess for c in found])), float(np.sqrt(np.mean([c.excess_se**2 for c in found]) / n_seeds))


@pytest.mark.parametrize("settings", [(), READ_NOISE, EVERYTHING], ids=["plain", "read_noise", "everything"])
def test_the_excess_does_not_depend_on_how_the_linear_response_is_known(settings: tuple[str, ...]) -> None:
    """The adjoint's own responses to the checked errors, and errors pushed forwards, are the same numbers."""
    question, response = asked(digits_plan("resnet", *settings))
    assert response.draws is not None
    assert response.draws.shape == (N_CHECKED, len(judged()), 10)
    known = check_linear(question, response)
    pushed = check_linear(question, replace(response, draws=None))
    assert known.excess == pytest.approx(pushed.excess, abs=1e-4)
    assert known.excess_se == pytest.approx(pushed.excess_se, rel=1e-2)


@pytest.mark.parametrize(
    ("name", "settings", "error_rel", "clip"),
    [("cnn", (), 0.03, True), ("resnet", (), 0.02, True), ("resnet", (), 0.02, False), ("cnn", EVERYTHING, 0.02, True)],
)
def test_the_excess_is_that_of_monte_carlo(name: str, settings: tuple[str, ...], error_rel: float, clip: bool) -> None:
    """Clipped errors are negated too, which is no programming: their skewness does not show."""
    plan = digits_plan(name, *settings, error_rel=error_rel, clip=clip)
    excess, se = pooled(plan, 6)
    sampled = monte_carlo(plan, judged(), seed=9, rel_error=0.01, max_trials=20_000)
    linear = adjoint_mse(plan, judged())
    expected, noise = sampled.mse / linear - 1.0, sampled.mse_se / linear
    assert abs(excess - expected) < 4.0 * np.hypot(se, noise)
    assert se < 0.3 * abs(expected) or se < 0.01, "too blunt to refute anything"


def test_reads_are_in_the_linear_response_and_not_in_the_excess() -> None:
    """Read noise alone, 10 % and more of the MSE, is first order: the negative control is what it would be without the control."""
    question, response = asked(digits_plan("cnn", *READ_NOISE, error_rel=0.005))
    share = sum(layer.read_noise for layer in response.layers.values()) / response.variance
    check: SelfCheck = check_linear(question, response)
    assert abs(check.excess) < 0.01 + 4.0 * check.excess_se
    assert share > 2.5 * (0.01 + 4.0 * check.excess_se)


def test_a_walk_taken_up_again_is_the_walk_with_one_node_changed() -> None:
    plan = digits_plan("resnet")
    graph, images = plan.graph, to_lanes(judged().x[:8])
    changed = plan.layers[1].node

    def apply(i: int, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
        operator = graph.nodes[i].operator
        if isinstance(operator, MatrixOperator) and i == changed:
            return operator.multiply(1.1 * operator.weights, inputs[0])
        return operator.forward(*inputs)

    kept = walk(graph, images, keep=True)
    found = rewalk(graph, kept, changed, apply=apply)
    np.testing.assert_array_equal(found, run(graph, images, apply=apply))
    assert np.abs(found - kept[graph.output]).max() > 1e-3
