"""Wires in a network: what columns see, in the predictor and in every trial."""

import numpy as np
import pytest

from accelsim.lower import ArraySite
from accelsim.optimizer.optimize import optimize
from accelsim.prediction.predict import predict
from accelsim.response.target import ideal_weights
from accelsim.sampling.monte_carlo import monte_carlo
from accelsim.sampling.programmings import Programmer
from devices.base.errors import SpecError
from devices.wires import effective_matrix
from tests.digits import digits_plan, digits_samples

WIRES = ("mapping.array.n_rows=16", "mapping.array.n_columns=8", "mapping.array.word_ohm=200", "mapping.array.bit_ohm=100")


def test_each_array_is_seen_through_its_own_wires() -> None:
    """Against a loop over row and column blocks of the weights as a matrix."""
    plan = digits_plan("cnn", *WIRES, "cell.programming=none")
    for layer in plan.layers:
        site: ArraySite = layer.site
        for part, seen in zip(site.targets(), site.stored()[0]):
            matrix = part.reshape(part.shape[0], -1).T
            expected = np.empty(matrix.shape)
            for i in range(0, len(matrix), 16):
                for j in range(0, matrix.shape[1], 8):
                    expected[i : i + 16, j : j + 8] = effective_matrix(matrix[i : i + 16, j : j + 8], word_ohm=200.0, bit_ohm=100.0)
            np.testing.assert_allclose(seen.reshape(part.shape[0], -1).T, expected, rtol=1e-12)
            assert seen.sum() < part.sum()  # a cell at zero may seem to conduct, by what sneaks around it


def test_trials_draw_cells_first_and_wires_act_on_them() -> None:
    wired, ideal = digits_plan("cnn", *WIRES), digits_plan("cnn")
    draws = [Programmer(plan, seed=2).draw(0).cells["conv1"][0] for plan in (wired, ideal)]
    matrix = draws[1].reshape(len(draws[1]), -1).T.astype(np.float64)
    expected = effective_matrix(matrix[:16, :8], word_ohm=200.0, bit_ohm=100.0)
    np.testing.assert_allclose(draws[0].reshape(len(draws[0]), -1).T[:16, :8], expected, rtol=1e-5)


def test_cells_without_errors_are_the_same_in_every_trial() -> None:
    """Wires must not act on what wires have acted on: without errors the drawn cells were the targets themselves."""
    plan, images = digits_plan("cnn", *WIRES, "cell.programming=none"), digits_samples()[:8]
    programmer = Programmer(plan, seed=2)
    first, later = (programmer.draw(trial).view.weights for trial in (0, 7))
    for node in first:
        np.testing.assert_array_equal(first[node], later[node])
    trials = monte_carlo(plan, images, seed=6, max_trials=40)
    assert trials.losses.min() == trials.losses.max()
    assert predict(plan, images, seed=5, method="adjoint").mse == pytest.approx(trials.mse, rel=1e-4)


def test_the_prediction_agrees_with_monte_carlo() -> None:
    plan, images = digits_plan("cnn", *WIRES, "mapping.array.bit_ohm=500", error_rel=0.01), digits_samples()[:16]
    report = predict(plan, images, seed=5, tol_rel=0.03)
    trials = monte_carlo(plan, images, seed=6, rel_error=0.03, max_trials=2000)
    assert trials.agreement_with(report).agrees
    assert report.by_cause["wires"] > 0.1 * report.mse
    assert sum(report.by_cause.values()) == pytest.approx(report.mse)
    without = predict(digits_plan("cnn", error_rel=0.01), images, seed=5, tol_rel=0.03)
    assert abs(trials.mse / without.mse - 1.0) > 0.1, "the negative control: wires left out"


def test_wires_need_cells_that_are_not_negative() -> None:
    with pytest.raises(SpecError, match="clip"):
        digits_plan("cnn", *WIRES, clip=False)


def test_no_resistance_changes_nothing() -> None:
    plain, none = (ideal_weights(digits_plan("cnn", *s)) for s in ((), ("mapping.array.n_rows=16", "mapping.array.word_ohm=0")))
    for node, weights in plain.weights.items():
        np.testing.assert_array_equal(weights, none.weights[node])


def test_the_optimizer_looks_conductances_behind_wires_up_in_a_table() -> None:
    """Wires take more from large conductances: the best ones need not be the largest, whatever power there is."""
    plan = digits_plan("cnn", *WIRES, "mapping.array.bit_ohm=500", error_rel=0.002)
    report = optimize(plan, digits_samples()[:32], seed=1, power_budget_w=1.0, mc_max_trials=0)
    assert report.feasible
    assert report.design is not None
    assert min(report.design.g_used_siemens.values()) < 25e-6  # type: ignore[type-var]
    best, largest = (predict(p, digits_samples()[:16], seed=1).mse for p in (plan.with_design(report.design), plan))
    assert best < largest
