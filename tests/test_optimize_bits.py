"""Bits of converters: the chosen ones against every combination there is, and whole designs."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from accelsim.design import Design
from accelsim.optimizer.bits import BitChoice, BitTable, bit_table, choose_bits
from accelsim.optimizer.closed_form import minimize_mse
from accelsim.optimizer.optimize import optimize
from accelsim.optimizer.problem import BiasModel, Infeasible, Problem
from accelsim.placement import Plan
from accelsim.prediction.predict import predict
from devices.base.errors import SpecError
from tests.digits import digits_plan, digits_samples

ADC = (
    "sense.adc.kind=uniform", "sense.adc.n_bits=8", "sense.adc.conversion.kind=survey_regression",
    "sense.adc.conversion.rate_hz=10e6", "sense.adc.conversion.technology_m=32e-9", "drive.t_read_s=100e-9",
)  # fmt: skip
BITS = (4, 5, 6, 7, 8)


def plan() -> Plan:
    return digits_plan("cnn", *ADC, error_rel=0.01)


def random_table(random: np.random.Generator, n_layers: int) -> BitTable:
    """Return errors that fall about as 4^-n and powers that rise, as converters' do, but not in order of any rule."""
    bits = np.arange(len(BITS))
    mse = random.uniform(0.1, 10.0, (n_layers, 1)) * 4.0 ** -(bits + random.uniform(-0.2, 0.2, (n_layers, len(BITS))))
    return BitTable(
        layers=tuple(f"l{i}" for i in range(n_layers)), bits=BITS, mse=mse, power_w=random.uniform(1.0, 5.0, (n_layers, 1)) * 1.5**bits
    )


def problem(random: np.random.Generator) -> Problem:
    return Problem(
        variance_siemens2=random.uniform(0.1, 1.0, 3), linear_w_per_siemens=random.uniform(0.5, 2.0, 3), square_w_per_siemens2=None,
        c_min_siemens=np.full(3, 1e-3), c_max_siemens=np.full(3, 2.0), p0_w=60.0, bias=BiasModel(q2=1.0),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_no_combination_of_bits_is_below_the_bound(seed: int) -> None:
    """All 625 combinations of four layers: the chosen one is within its stated gap of the best, and mostly the best."""
    random = np.random.default_rng(seed)
    table, base = random_table(random, 4), problem(random)
    present = dict.fromkeys(table.layers, 8)
    now = table.totals([len(BITS) - 1] * 4)
    budget = 60.0 - now[1] + 0.6 * now[1] + 2.0
    found = choose_bits(table, base, present, power_budget_w=budget, mse_budget=None)
    assert isinstance(found, BitChoice)
    best = np.inf
    for choice in itertools.product(range(len(BITS)), repeat=4):
        mse, power = table.totals(choice)
        moved = replace(base, bias=BiasModel(q2=1.0 + max(mse - now[0], -1.0)), p0_w=max(60.0 + power - now[1], 0.0))
        answer = minimize_mse(moved, budget)
        if not isinstance(answer, Infeasible):
            best = min(best, answer.mse)
    assert found.mse >= best * (1.0 - 1e-9), "the enumeration is complete"
    assert found.mse <= best * (1.0 + found.gap_rel) * (1.0 + 1e-9)
    assert found.mse <= 1.05 * best


def test_corners_lie_on_a_convex_curve() -> None:
    table = random_table(np.random.default_rng(9), 5)
    points = np.array([table.totals(corner) for corner in table.corners()])
    slopes = np.diff(points[:, 0]) / np.diff(points[:, 1])
    assert np.all(np.diff(points[:, 1]) < 0.0)
    assert np.all(np.diff(slopes) <= 1e-12), "each watt that is freed costs more than the one before"


def test_a_design_with_bits_meets_its_budget_and_is_placed_from_its_file() -> None:
    full, images = plan(), digits_samples()[:64]
    now = predict(full, images, seed=1).read_power_w
    report = optimize(full, images, seed=1, power_budget_w=0.8 * now, adc_bits=(4, 9), mc_max_trials=400, mc_rel_error=0.05)
    assert report.feasible
    assert report.design is not None
    assert report.read_power_w is not None
    assert report.read_power_w <= 0.8 * now * (1 + 1e-9)
    assert len(set(report.design.adc_bits.values())) > 1
    assert any("no choice of bits is better" in note for note in report.notes)
    again = Design.from_text(report.design.to_toml())
    assert again == report.design
    assert hash(again) == hash(report.design)
    placed = full.with_design(again)
    for layer in placed.layers:
        assert layer.sense.adc is not None
        assert layer.sense.adc.n_bits == again.adc_bits[layer.name]
    assert placed.digest != full.with_design(Design(g_used_siemens=dict(again.g_used_siemens))).digest
    check = predict(placed, images[:32], seed=1)
    assert check.read_power_w == pytest.approx(report.read_power_w, rel=0.02)
    alike = [full.with_design(replace(again, adc_bits=dict.fromkeys(again.adc_bits, n))) for n in (5, 6, 7)]
    uniform = [predict(other, images[:32], seed=1) for other in alike]
    cheaper = [r.mse for r in uniform if r.read_power_w <= report.read_power_w]
    assert check.mse < min(cheaper), "better than the same number of bits everywhere at the same power"


def test_what_is_missing_is_told() -> None:
    images = digits_samples()[:16]
    with pytest.raises(SpecError, match="no layer has a"):
        optimize(digits_plan("cnn"), images, seed=1, power_budget_w=1.0, adc_bits=(4, 8))
    with pytest.raises(SpecError, match="conversion"):
        bit_table(digits_plan("cnn", *ADC[:2], "drive.t_read_s=1e-7"), plan().graph, images, BITS)
    with pytest.raises(SpecError, match="least"):
        optimize(plan(), images, seed=1, power_budget_w=1.0, adc_bits=(8, 4))
    with pytest.raises(SpecError, match="adc_bits"):
        Design.from_text('schema = 1\n[g_used_siemens]\nconv1 = "20 uS"\n[adc_bits]\nconv1 = 0.5\n')
    with pytest.raises(SpecError, match="does not have"):
        plan().with_design(Design(g_used_siemens={"conv1": 20e-6}, adc_bits={"conv9": 6}))
