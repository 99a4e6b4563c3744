"""Stuck cells in a network: the sampled sum over single events against every event there is, and against Monte-Carlo."""

import numpy as np
import pytest

from accelsim.placement import Plan
from accelsim.prediction.event_sources import WeightSource, sources_of
from accelsim.prediction.events import sampled_sum, without_faults
from accelsim.prediction.predict import predict
from accelsim.prediction.question import Question
from accelsim.response.linear import respond
from accelsim.response.target import reference_outputs
from accelsim.sampling.monte_carlo import monte_carlo
from accelsim.sampling.programmings import Programmer
from tests.digits import digits_plan, digits_samples

IMAGES = digits_samples()[100:116]


def stuck_plan(low: float, high: float, *more: str, error_rel: float = 0.01) -> Plan:
    faults = (
        "cell.stuck.kind=stuck_at", f"cell.stuck.low_p={low}", f"cell.stuck.high_p={high}", "cell.stuck.low_siemens=0",
        "cell.stuck.high_siemens=25e-6",
    )  # fmt: skip
    return digits_plan("cnn", *faults, *more, error_rel=error_rel)


def question_of(plan: Plan, *, tol_rel: float = 0.02) -> Question:
    wanted = reference_outputs(plan, plan.graph, IMAGES, "float")
    programmer = Programmer(plan, seed=3)
    return Question(
        plan=plan, programmer=programmer, errors=(), graph=plan.graph, samples=IMAGES, seed=3, wanted=wanted, tol_rel=tol_rel,
        reference="float",
    )  # fmt: skip


@pytest.mark.parametrize("more", [(), ("sense.adc.kind=uniform", "sense.adc.n_bits=6")], ids=["ideal", "converters"])
def test_the_sampled_sum_is_that_over_every_event(more: tuple[str, ...]) -> None:
    """About 2,800 events, each run through the network: the definition, with nothing drawn."""
    plan = stuck_plan(1e-3, 1e-3, *more)
    healthy = without_faults(plan)
    question = question_of(plan)
    response = respond(healthy, plan.graph, IMAGES, seed=3)
    sources, total = sources_of(question, response, healthy), 0.0
    for source in sources:
        assert isinstance(source, WeightSource)
        total += sum(source.exactly(int(at)) for at in np.flatnonzero(np.abs(source.events.change.ravel()) > 0.0))
    found = sampled_sum(sources, tol_rel=question.tol_rel, least=0.0)
    assert found.total == pytest.approx(total, abs=4.0 * found.mse_se)
    assert found.mse_se < 0.02 * total
    fewer = sampled_sum(sources_of(question, response, healthy)[::2], tol_rel=question.tol_rel, least=0.0)
    assert total - fewer.total > 8.0 * fewer.mse_se, "the negative control: cells stuck high left out"


@pytest.mark.parametrize("p", [1e-4, 1e-3])
def test_the_prediction_agrees_with_monte_carlo(p: float) -> None:
    plan = stuck_plan(p, 0.3 * p)
    report = predict(plan, IMAGES, seed=5)
    trials = monte_carlo(plan, IMAGES, seed=6, rel_error=0.03, max_trials=20_000)
    met = trials.agreement_with(report)
    half = 0.5 * (met.ratio_ci[1] - met.ratio_ci[0])
    assert abs(met.ratio - 1.0) < report.rel_error_estimate + half
    assert report.by_cause["stuck"] > 0.0
    assert sum(report.by_cause.values()) == pytest.approx(report.mse)


def test_many_faults_are_left_to_trials() -> None:
    report = predict(stuck_plan(0.02, 0.02), IMAGES, seed=5)
    assert report.method == "corrected"
    assert "single events" in report.reason


def test_no_faults_cost_nothing() -> None:
    without, none = predict(digits_plan("cnn", error_rel=0.01), IMAGES, seed=5), predict(stuck_plan(0.0, 0.0), IMAGES, seed=5)
    assert none.mse == pytest.approx(without.mse, rel=1e-6)
