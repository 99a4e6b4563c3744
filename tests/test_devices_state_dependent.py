"""Errors by state: published values of the presets, the refusals, and a whole prediction beside Monte-Carlo."""

import numpy as np
import pytest

from accelsim.accelerator import Accelerator
from accelsim.optimizer.optimize import optimize
from accelsim.placement import place
from accelsim.prediction.predict import predict
from accelsim.presets import preset_facts
from accelsim.sampling.monte_carlo import monte_carlo
from devices import catalog
from devices.base.errors import SpecError
from devices.state_dependent import InverseProportionalError, StateDependentError, TabulatedError
from workloads.zoo import load_embedded_network, load_embedded_samples

PUBLISHED = {
    "pcm_nandakumar": ((0.0, 6.25, 12.5, 18.75, 25.0), (0.263, 0.681, 0.953, 1.077, 1.055)),
    "pcm_joshi": ((0.25,), (0.305,)),
    "rram_wan_a": ((0.0, 40.0), (0.348, 1.103)),
    "rram_wan_b": ((0.0, 39.26), (1.053, 1.681)),
    "rram_milo": ((50.0, 225.0), (4.33, 2.73)),
}
"""State and standard deviation, both in microsiemens, as the sources or the papers state them."""
BY_STATE = [n for n in catalog.names() if isinstance(Accelerator.preset(n).cell.programming, StateDependentError)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_errors(name: str) -> None:
    cell = Accelerator.preset(name).cell
    states, stds = PUBLISHED[name]
    found = cell.programming.std_siemens(1e-6 * np.array(states), cell.g_max_siemens)  # type: ignore[union-attr]
    np.testing.assert_allclose(1e6 * found, stds, atol=6e-4 if name != "rram_milo" else 6e-3)


@pytest.mark.parametrize("name", BY_STATE)
def test_presets_say_where_they_are_from_and_err_plausibly(name: str) -> None:
    """Every state of the range errs, by less than an eighth of the range; and no polynomial has dipped below zero."""
    cell, facts = Accelerator.preset(name).cell, preset_facts(name)
    states = np.linspace(cell.g_min_siemens, cell.g_max_siemens, 200)
    std = cell.programming.std_siemens(states, cell.g_max_siemens)  # type: ignore[union-attr]
    assert std[0] >= 0.0
    assert std[1:].min() > 0.0
    assert std.max() < 0.125 * cell.g_max_siemens
    assert "et al." in facts.source or "coefficients as in" in facts.source
    assert facts.error_siemens is not None
    assert facts.error_siemens[::2] == pytest.approx((std[0], std[-1]))


@pytest.mark.parametrize("name", ["pcm_nandakumar", "rram_wan_b", "rram_milo"])
def test_prediction_and_monte_carlo_agree_on_an_embedded_network(name: str) -> None:
    """Cells with errors by state, from zero or from far above it: the intervals meet, at the tolerance that was asked for."""
    network, samples = load_embedded_network("fashion_cnn"), load_embedded_samples("fashion_cnn")[:32]
    plan = place(network, Accelerator.preset(name), calibration=samples)
    predicted = predict(plan, samples, seed=1)
    trials = monte_carlo(plan, samples, seed=2, rel_error=0.03, max_trials=3_000)
    assert predicted.valid
    assert abs(predicted.mse / trials.mse - 1.0) < 0.05 + 0.03
    assert any("by state (polynomial)" in line for line in predicted.meaning)


def test_precompensation_takes_the_bias_away() -> None:
    """Without it clipped Joshi cells shift every pair; with it the mean error is a hundredth of that."""
    network, samples = load_embedded_network("fashion_cnn"), load_embedded_samples("fashion_cnn")[:8]
    shifts = []
    for on in ("false", "true"):
        chip = Accelerator.preset("pcm_nandakumar", set=(f"mapping.precompensate={on}",))
        site = place(network, chip, calibration=samples).layers[1].site
        shifts.append(float(np.abs(site.moments().mean - site.values).mean()))
    assert shifts[1] < 0.01 * shifts[0]


def test_optimize_looks_errors_by_state_up_in_a_table() -> None:
    network, samples = load_embedded_network("fashion_cnn"), load_embedded_samples("fashion_cnn")[:8]
    plan = place(network, Accelerator.preset("pcm_joshi"), calibration=samples)
    report = optimize(plan, samples, seed=1, power_budget_w=1.0, mc_max_trials=0)
    assert report.feasible
    assert any("no closed form" in note for note in report.notes)


FAULTS = {
    "kind = 'tabulated'\npoints_siemens = [0.0, '5 uS']\nstds_siemens = ['1 uS']": "stds_siemens: need one for each of",
    "kind = 'tabulated'\npoints_siemens = ['5 uS', '5 uS']\nstds_siemens = [0, 0]": "points_siemens: need each above the one before",
    "kind = 'tabulated'\npoints_siemens = ['5 uS', '6 uV']\nstds_siemens = ['1 uS', '1 uS']": "uV is a voltage, each of them",
    "kind = 'tabulated'\npoints_siemens = '5 uS'\nstds_siemens = ['1 uS']": "need a list, each a conductance, e.g.",
    "kind = 'tabulated'\npoints_siemens = [0.0]\nstds_siemens = ['-1 uS']": "need stds_siemens >= 0, each of them",
    "kind = 'polynomial'\ncoefficients_siemens = []\nover_siemens = '1 uS'": "coefficients_siemens: need 1 to 16 of them, got 0",
    "kind = 'saturating'\ntop_siemens = '1 uS'\nknee_siemens = 0": "need knee_siemens > 0",
}


@pytest.mark.parametrize(("table", "message"), FAULTS.items())
def test_faulty_tables_are_told(table: str, message: str) -> None:
    text = f"schema = 1\nname = 'x'\nuse = 'memse'\n[cell.programming]\n{table}\n"
    with pytest.raises(SpecError) as caught:
        Accelerator.from_text(text)
    assert message in str(caught.value)


def test_numbers_for_specs_only_are_refused_in_python() -> None:
    with pytest.raises(SpecError, match="need a number in siemens; units are for specs"):
        TabulatedError(points_siemens=("0 S",), stds_siemens=(1e-6,))  # type: ignore[arg-type]


def test_a_list_can_be_set_from_the_command_line() -> None:
    law = "cell.programming={kind='tabulated', points_siemens=[0.0], stds_siemens=['1 uS']}"
    chip = Accelerator.preset("memse", set=(law, "cell.programming.stds_siemens=['2 uS']"))
    assert chip.cell.programming == TabulatedError(points_siemens=(0.0,), stds_siemens=(2e-6,))


def test_an_inverse_error_needs_a_lowest_conductance() -> None:
    law = InverseProportionalError(error_rel=0.01)
    assert law.std_siemens(np.array([12.5e-6, 25e-6]), 25e-6) == pytest.approx([0.5e-6, 0.25e-6])
    with pytest.raises(SpecError, match=r"give cell\.g_min_siemens > 0"):
        law.moments(np.zeros(1), 25e-6)
