"""Defects that were found in other simulators of this kind: each would be caught here."""

import numpy as np
import pytest

from accelsim.accelerator import Accelerator
from accelsim.placement import place
from accelsim.prediction.predict import predict
from accelsim.sampling.monte_carlo import monte_carlo
from accelsim.sampling.programmings import Programmer
from devices.base.errors import SpecError
from devices.converter_cost import DacModel
from devices.state_dependent import PolynomialError
from devices.wires import effective_matrix
from tests.digits import digits_network, digits_plan, digits_samples
from workloads.zoo import load_embedded_network, load_embedded_samples

IMAGES = digits_samples()[:16]


def test_cells_of_one_level_do_not_share_their_error() -> None:
    """MNSIM draws one number a level and slice: all its cells would be off by the same."""
    plan = digits_plan("cnn", "mapping.levels=4", "cell.clip=false", error_rel=0.02)
    site, draw = plan.layers[1].site, Programmer(plan, seed=1).draw(0)
    for target, stored in zip(site.targets(), draw.cells["conv2"]):
        for level in np.unique(target):
            errors = (stored - target)[target == level]
            if errors.size > 3:
                assert np.unique(errors).size == errors.size
                assert errors.std() == pytest.approx(0.02 * 25e-6, rel=4.0 / np.sqrt(2 * errors.size))


def test_faults_can_be_left_out() -> None:
    """MNSIM's faults are always on."""
    assert Accelerator.preset("memse").cell.stuck is None
    assert "stuck" not in predict(digits_plan("cnn"), IMAGES, seed=1).by_cause


def test_an_eight_bit_dac_takes_picojoules() -> None:
    """MNSIM's table has 0.4992 W for one: a factor of a thousand is missing."""
    assert 1e-14 < DacModel(v_v=1.0).energy_j(8) < 1e-11


def test_programming_errors_do_not_average_out_over_the_bits_of_an_input() -> None:
    """NeuroSim V1.3 to V2.1 redraw what they call device variation for every bit-plane; here all reads of a cell meet one error."""
    serial = ("drive.dac.kind=uniform", "drive.dac.n_bits=6", "drive.slice_bits=1")
    plans = [digits_plan("cnn", *s, error_rel=0.05) for s in (serial, serial[:2])]
    mses = [predict(plan, IMAGES, seed=1, tol_rel=0.02).by_cause["programming"] for plan in plans]
    assert mses[0] == pytest.approx(mses[1], rel=0.02)
    sampled = [monte_carlo(plan, IMAGES, seed=2, rel_error=0.05, max_trials=1000).mse for plan in plans]
    assert sampled[0] == pytest.approx(sampled[1], rel=0.1)


def test_the_first_layer_errs_by_the_same_law_as_the_others() -> None:
    """NeuroSim: additive in the first layer, in proportion in the rest."""
    plan = digits_plan("cnn", "cell.clip=false", error_rel=0.02)
    draw = Programmer(plan, seed=1).draw(0)
    for layer in plan.layers:
        errors = np.concatenate([(s - t).ravel() for s, t in zip(draw.cells[layer.name], layer.site.targets())])
        assert errors.std() == pytest.approx(0.02 * 25e-6, rel=4.0 / np.sqrt(2 * errors.size))


def test_a_preset_errs_by_what_its_own_range_says() -> None:
    """aihwkit's Wan cells never apply their reference of 40 uS to another range: the deviation of a state would be that of another one."""
    cell = Accelerator.preset("rram_wan_a").cell
    law = cell.programming
    assert law is not None
    x = 0.5
    published = 0.348 + 16.030 * x - 43.853 * x**2 + 45.393 * x**3 - 16.815 * x**4  # at 20 uS of 40 uS, in uS
    found = law.moments(np.full(1, 20e-6), cell.g_max_siemens).variance_siemens2[0]
    assert 1e6 * np.sqrt(found) == pytest.approx(published, rel=1e-3)
    narrower = law.moments(np.full(1, 20e-6), 25e-6).variance_siemens2[0]
    assert narrower == pytest.approx(found), "the law is over its own reference, whatever range is used"


def test_a_key_that_is_not_one_is_refused() -> None:
    """aihwkit's acceptance range of 2e-2 is no key of its table, and silently becomes another."""
    with pytest.raises(SpecError, match="nearest"):
        Accelerator.preset("memse", set=("cell.write_verify.window=0.02",))


def test_stored_conductances_are_not_negative_and_the_prediction_knows() -> None:
    """MemSE's theory does not clip, its own Monte-Carlo does: a third of the error at small conductances."""
    plans = [digits_plan("mlp", error_rel=0.05, clip=clip) for clip in (True, False)]
    clipped, unclipped = (predict(plan, IMAGES, seed=1).mse for plan in plans)
    assert abs(clipped / unclipped - 1.0) > 0.1
    trials = monte_carlo(plans[0], IMAGES, seed=2, rel_error=0.03, max_trials=3000)
    assert clipped == pytest.approx(trials.mse, rel=0.08)


def test_targets_are_rounded_to_the_nearest_level() -> None:
    """MemSE's code floors, which costs 4 to 85 times the error: only the preset that reproduces it does."""
    plans = [digits_plan("cnn", "mapping.levels=32", f"mapping.rounding={r}", error_rel=0.0) for r in ("nearest", "floor")]
    errors = [predict(plan, IMAGES, seed=1).mse for plan in plans]
    assert errors[1] > 2.0 * errors[0]
    assert Accelerator.preset("memse").mapping.rounding == "nearest"
    assert Accelerator.preset("memse_compat").mapping.rounding == "floor"


def test_memory_does_not_grow_with_the_square_of_a_map() -> None:
    """A covariance of all positions of fashion_cnn's first map would take 300 MB an image; the whole prediction takes less."""
    import tracemalloc

    samples = load_embedded_samples("fashion_cnn")
    plan = place(load_embedded_network("fashion_cnn"), Accelerator.preset("memse"), calibration=samples[:16])
    elements = max(int(np.prod(node.shape)) for node in plan.graph.nodes)
    tracemalloc.start()
    predict(plan, samples[:16], seed=1, method="sketched")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * elements**2


def test_every_sampled_number_has_its_interval() -> None:
    """CrossSim's notebooks print single runs: 0.21637 where 40 runs give 0.2118 +- 0.0018."""
    trials = monte_carlo(digits_plan("cnn"), IMAGES, seed=1, rel_error=0.05, max_trials=400)
    assert trials.ci_low < trials.mse < trials.ci_high
    assert trials.accuracy_ci is not None


def test_what_is_not_known_is_absent_and_no_number() -> None:
    """NVMExplorer's -1 for a failure leaks into totals."""
    report = predict(digits_plan("cnn"), IMAGES, seed=1)
    numbers = [v for v in report.numbers().values() if isinstance(v, float)]
    assert -1.0 not in numbers
    unlabelled = predict(digits_plan("cnn"), type(IMAGES)(x=IMAGES.x, y=None, digest=IMAGES.digest), seed=1)
    assert unlabelled.accuracy_clean is None


def test_energy_rises_steadily_with_what_is_stored() -> None:
    """FaultyMemory's energy jumps at the ends of its range; read power is linear in the conductance in use."""
    used = np.array([5e-6, 10e-6, 15e-6, 20e-6, 25e-6])
    powers = []
    for g in used:
        chip = Accelerator.preset("memse", set=(f"mapping.g_used_siemens={g}", "cell.programming=none"))
        powers.append(predict(place(digits_network("cnn"), chip, calibration=IMAGES), IMAGES, seed=1).read_power_w)
    np.testing.assert_allclose(powers / used, powers[0] / used[0], rtol=1e-6)


def test_as_many_cells_are_stuck_as_was_asked() -> None:
    """NeuroSim V1.5: asking for 1 % stuck low gives 0.01 %, and 1 % of each gives 0.02 % and 1.98 %."""
    stuck = "cell.stuck={kind='stuck_at',low_p=0.01,high_p=0.01,low_siemens=0.0,high_siemens=25e-6}"
    cells = [
        part.ravel()
        for trial in range(20)
        for of in Programmer(digits_plan("cnn", stuck, "cell.programming=none"), seed=1).draw(trial).cells.values()
        for part in of
    ]
    targets = [part.ravel() for layer in digits_plan("cnn", "cell.programming=none").layers for part in layer.site.targets()] * 20
    stored, wanted = np.concatenate(cells), np.concatenate(targets)
    for value in (0.0, 25e-6):
        could = np.abs(wanted - value) > 1e-9  # cells that are there anyway cannot be told apart
        share, n = float(np.mean(np.abs(stored[could] - value) < 1e-12)), int(could.sum())
        assert share == pytest.approx(0.01, abs=4.0 * np.sqrt(0.01 / n)), value


def test_word_and_bit_lines_are_not_exchanged() -> None:
    """CrossSim once had them so (issue 18): a resistive bit line takes most from rows far from its end, a word line from such columns."""
    g = np.full((8, 8), 20e-6)
    bit, word = (effective_matrix(g, word_ohm=w, bit_ohm=b) for w, b in ((0.0, 100.0), (100.0, 0.0)))
    assert np.all(np.diff(bit, axis=0) > 0.0)
    np.testing.assert_allclose(np.diff(bit, axis=1), 0.0, atol=1e-18)
    assert np.all(np.diff(word, axis=1) < 0.0)
    np.testing.assert_allclose(np.diff(word, axis=0), 0.0, atol=1e-18)


def test_two_fits_of_one_figure_say_that_they_disagree() -> None:
    """Three times at zero, half as much again at the top: both are there, each with its source, and differ as published."""
    stds = []
    for name in ("rram_wan_a", "rram_wan_b"):
        cell = Accelerator.preset(name).cell
        assert cell.source
        assert isinstance(cell.programming, PolynomialError)
        stds.append(cell.programming.std_siemens(np.array([0.0, 39.26e-6]), cell.g_max_siemens))
    np.testing.assert_allclose(stds[1] / stds[0], [3.0, 1.5], rtol=0.06)
