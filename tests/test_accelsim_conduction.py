"""Non-linear cells in a network: predicted, sampled, priced, blamed, explained, optimized."""

from collections.abc import Mapping

import numpy as np
import pytest

from accelsim.conducting import ReadConduction
from accelsim.design import Design
from accelsim.ledger import read_power
from accelsim.optimizer.optimize import optimize
from accelsim.prediction.predict import predict
from accelsim.prediction.remedies import remedies
from accelsim.response.passes import linearize, pull, push
from accelsim.response.target import ideal_weights, mean_weights
from accelsim.sampling.monte_carlo import monte_carlo
from accelsim.sampling.programmings import Programmer
from devices.base.errors import SpecError
from devices.conduction import SinhConduction
from devices.wires import effective_matrix
from devices.wires_nonlinear import solve_nonlinear
from tests.digits import digits_plan, digits_samples
from tests.test_accelsim_datapath import ADC, DAC, MILO, OFFSET, READ, ROWS, SINH
from workloads.network import to_lanes
from workloads.operators.matrix import MatrixOperator
from workloads.walk import walk

IMAGES = slice(100, 116)


@pytest.mark.parametrize(
    "settings", [SINH + READ, SINH + DAC + ADC + ROWS, MILO + ("drive.v_read_v=0.3",), MILO + DAC + ADC + OFFSET + ("drive.v_read_v=0.3",)],
    ids=["sinh_read_noise", "sinh_converters", "by_state", "by_state_offset"],
)  # fmt: skip
def test_predictions_agree_with_monte_carlo(settings: tuple[str, ...]) -> None:
    """Error and power; a prediction for ohmic cells (the negative control) is a third off, or more."""
    plan, images = digits_plan("cnn", *settings, error_rel=0.005), digits_samples()[IMAGES]
    report = predict(plan, images, seed=5, tol_rel=0.03)
    trials = monte_carlo(plan, images, seed=6, rel_error=0.03, max_trials=3000)
    assert report.valid
    assert trials.agreement_with(report).agrees
    assert report.read_power_w == pytest.approx(trials.read_power_w, rel=0.01)
    assert sum(report.by_cause.values()) == pytest.approx(report.mse)
    if "mapping.encoding=offset" not in settings:
        ohmic = predict(digits_plan("cnn", *settings, "cell.conduction=none", error_rel=0.005), images, seed=5, tol_rel=0.03)
        assert abs(ohmic.mse / trials.mse - 1.0) > 1.0 / 3.0
        assert report.by_cause["conduction"] > 0.2 * report.mse


def test_a_layer_that_only_conducts_non_linearly_has_its_share() -> None:
    """Cells without any error: all of the MSE is conduction's, layer by layer too."""
    plan, images = digits_plan("cnn", *SINH, "cell.programming=none"), digits_samples()[IMAGES]
    report = predict(plan, images, seed=5)
    assert report.variance == 0.0
    assert report.by_cause["conduction"] == pytest.approx(report.mse, rel=1e-6)
    assert all(report.by_layer[layer.name] > 0.0 for layer in plan.layers)


@pytest.mark.parametrize("settings", [SINH, MILO], ids=["sinh", "by_state"])
def test_the_map_of_small_errors_is_that_of_differences(settings: tuple[str, ...]) -> None:
    """Inputs that a later layer gets: J e against the network run twice; and the adjoint is its transpose."""
    plan = digits_plan("cnn", *settings, error_rel=0.01)
    images, view = to_lanes(digits_samples()[100:102].x.astype(np.float32)), mean_weights(plan)
    error = Programmer(plan, seed=1).error(0)
    point = linearize(plan.graph, images, view)
    found = push(point, error.weights, error.biases)

    def outputs(share: float) -> np.ndarray:
        moved = view.shifted(error, share)
        return walk(plan.graph, images, apply=moved.applied_to(plan.graph), keep=True)[plan.graph.output].astype(np.float64)

    expected = (outputs(2e-3) - outputs(-2e-3)) / 4e-3
    tolerance = 0.01 if settings is SINH else 0.25  # where curves go with the state, errors of cells count by the layer's mean: 19 % off
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()
    gathered = []

    def visit(i: int, delta: np.ndarray, _: np.ndarray) -> None:
        operator = plan.graph.nodes[i].operator
        assert isinstance(operator, MatrixOperator)
        gathered.append(float(np.sum(delta * operator.multiply(error.weights[i], point.error_drive(i)))))

    pull(point, np.ones_like(found), visit)
    assert sum(gathered) == pytest.approx(float(found.sum()), rel=1e-3)


@pytest.mark.parametrize(("settings", "tolerance"), [(SINH, 1e-5), (MILO, 0.005)], ids=["sinh", "by_state"])
def test_read_power_is_current_times_voltage_cell_by_cell(settings: tuple[str, ...], tolerance: float) -> None:
    """A loop over positions and cells of the first layer; means stand for the ratio of terms, 0.5 % where it goes with the state."""
    plan, images = digits_plan("cnn", *settings, "cell.programming=none"), digits_samples()[100:102]
    layer = plan.layers[0]
    found = read_power(plan, plan.graph, images, [ideal_weights(plan)])[layer.name].memristors_w
    x = np.moveaxis(images.x, 0, -1).astype(np.float64)
    assert layer.site.cell.conduction is not None
    kernel = layer.operator.geometry  # type: ignore[attr-defined]
    padded = np.pad(x, ((0, 0), (kernel.pads[0], kernel.pads[2]), (kernel.pads[1], kernel.pads[3]), (0, 0))) * layer.volts_per_unit
    total = 0.0
    for i, j in np.ndindex(kernel.out_shape[1:]):
        at = (slice(None), *(slice(p * s, p * s + k) for p, s, k in zip((i, j), kernel.stride, kernel.kernel)))
        volts = padded[at].reshape(-1, x.shape[-1])
        for part in layer.site.targets():
            cells = part.reshape(len(part), -1)
            total += float(np.sum(layer.site.cell.conduction.current_a(cells[:, :, None], volts[None]) * volts))
    most = max(each.n_reads for each in plan.layers)
    assert found == pytest.approx(total / x.shape[-1] / most, rel=tolerance)
    ohmic = digits_plan("cnn", *settings, "cell.programming=none", "cell.conduction=none")
    assert abs(read_power(ohmic, plan.graph, images, [ideal_weights(ohmic)])[layer.name].memristors_w / found - 1.0) > 5.0 * tolerance


def test_one_bit_at_a_time_the_curve_is_only_a_gain() -> None:
    """Cells measured at the read voltage and inputs of one bit: every cell is read where it was measured, and nothing is left to err."""
    serial = ("drive.dac.kind=uniform", "drive.dac.n_bits=8", "drive.slice_bits=1", "cell.programming=none")
    bent, ohmic = (predict(digits_plan("cnn", *settings, *serial), digits_samples()[IMAGES], seed=5) for settings in (SINH, ()))
    assert bent.by_cause["conduction"] < 1e-9
    assert bent.mse == pytest.approx(ohmic.mse, rel=1e-3)


def test_explaining_says_what_ohmic_cells_would_buy() -> None:
    plan, images = digits_plan("cnn", *SINH, error_rel=0.005), digits_samples()[IMAGES]
    found = remedies(plan, images, predict(plan, images, seed=5), n_layers=1)
    assert found[0].what == "ohmic cells, all layers"
    assert found[0].mse == pytest.approx(predict(digits_plan("cnn", error_rel=0.005), images, seed=5).mse, rel=0.05)


def test_the_optimizer_keeps_to_what_it_promises() -> None:
    plan, images = digits_plan("cnn", *SINH, error_rel=0.01), digits_samples()[IMAGES]
    best = optimize(plan, images, seed=1, power_budget_w=5e-5, mc_max_trials=200, verify=images)
    assert best.feasible
    assert best.design is not None
    moved = predict(plan.with_design(best.design), images, seed=2)
    assert moved.read_power_w <= 5e-5 * 1.02
    assert moved.mse < predict(plan.with_design(_common(best.design.g_used_siemens)), images, seed=2).mse * 1.02


def _common(found: Mapping[str, float | tuple[float, ...]]) -> Design:
    least = min(float(np.min(np.asarray(values))) for values in found.values())
    return Design(scale="layer", g_used_siemens=dict.fromkeys(found, least))


def test_a_read_voltage_beyond_the_law_is_refused() -> None:
    with pytest.raises(SpecError, match="limit_v"):
        digits_plan("cnn", *MILO, "drive.v_read_v=0.6")


@pytest.mark.parametrize(("ohm", "limit"), [(1.0, 0.02), (10.0, 0.03)])
def test_wires_and_non_linear_cells_together_are_nearly_those_of_newton(ohm: float, limit: float) -> None:
    """Columns of 64 x 64 cells of 10 to 100 kohm, sinh at twice v0: the ohmic effective matrix times the curve, against exact nodes.

    Lines take up to 10 and 49 % of a column's current; what is left out, how drops and curve meet, is 1.8 and 2.4 % of it.
    """
    random = np.random.default_rng(0)
    g, u = 1.0 / random.uniform(10e3, 100e3, (64, 64)), random.uniform(0.0, 1.0, 64)
    read = ReadConduction(law=SinhConduction(v0_v=0.1, measured_at_v=0.2), v_read_v=0.2)
    exact = solve_nonlinear(read.law, g, 0.2 * u, word_ohm=ohm, bit_ohm=ohm).current_a
    approximate = 0.2 * read.shapes(u)[0] @ effective_matrix(g, word_ohm=ohm, bit_ohm=ohm)
    ohmic = 0.2 * u @ effective_matrix(g, word_ohm=ohm, bit_ohm=ohm)
    without = 0.2 * read.shapes(u)[0] @ g
    off = [np.abs(found / exact - 1.0).max() for found in (approximate, ohmic, without)]
    assert off[0] < limit
    assert min(off[1:]) > 5.0 * limit
