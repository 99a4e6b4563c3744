"""Designs for cells without a closed form: against random designs that are predicted one by one, and against Monte-Carlo."""

import numpy as np
import pytest

from accelsim.accelerator import Accelerator
from accelsim.design import Design
from accelsim.optimizer.optimize import optimize
from accelsim.placement import Plan, place
from accelsim.prediction.predict import predict
from devices.base.errors import UnsupportedMethodError
from tests.digits import CALIBRATION, digits_network, digits_plan, digits_samples

IMAGES = digits_samples()[:64]
AGED = ("cell.drift.kind=power_law", "cell.drift.nu_mean=0.05", "cell.drift.nu_std=0.01", "cell.drift.t0_s=20", "cell.drift.t_s=3600")
COMPENSATED = ("mapping.drift_compensation=true",)


def plan_with(*settings: str) -> Plan:
    accelerator = Accelerator.from_text(
        'schema = 1\nname = "x"\nuse = "memse"\n[cell.programming]\nkind = "polynomial"\n'
        'coefficients_siemens = ["0.3 uS", "0.8 uS", "-0.5 uS"]\nover_siemens = "25 uS"\n',
        set=settings,
    )
    return place(digits_network("cnn"), accelerator, calibration=digits_samples()[CALIBRATION])


@pytest.mark.parametrize("settings", [(), (*AGED, *COMPENSATED)], ids=["by state", "aged"])
def test_no_random_design_within_the_budget_is_better(settings: tuple[str, ...]) -> None:
    plan = plan_with(*settings)
    half = IMAGES[:32]
    budget = 0.5 * predict(plan, half, seed=1).read_power_w
    report = optimize(plan, IMAGES, seed=1, power_budget_w=budget, mc_max_trials=400, mc_rel_error=0.05)
    assert report.feasible
    assert report.design is not None
    assert report.mc is not None
    assert report.read_power_w is not None
    assert report.mse is not None
    assert report.read_power_w <= budget * (1 + 1e-9)
    best = predict(plan.with_design(report.design), half, seed=1)
    assert best.read_power_w == pytest.approx(report.read_power_w, rel=0.02)
    assert best.mse == pytest.approx(report.mse, rel=0.1)
    assert abs(report.mc.mse / report.mse_verify - 1.0) < 0.15  # type: ignore[operator]
    random, names = np.random.default_rng(2), [layer.name for layer in plan.layers]
    tried = 0
    while tried < 12:
        used = dict(zip(names, 25e-6 * random.uniform(0.2, 1.0, len(names))))
        other = predict(plan.with_design(Design(g_used_siemens=used)), half, seed=1, attribution=False)
        if 0.85 * budget < other.read_power_w <= budget:
            tried += 1
            assert other.mse > 0.95 * best.mse
    common = optimize(plan, IMAGES, seed=1, power_budget_w=budget, per="network", mc_max_trials=0)
    assert common.mse is not None
    assert report.mse <= common.mse * (1 + 0.02)


def test_an_error_budget_is_met_with_the_least_power() -> None:
    plan = plan_with()
    loose = 1.5 * predict(plan, IMAGES[:32], seed=1).mse
    report = optimize(plan, IMAGES, seed=1, mse_budget=loose, mc_max_trials=0)
    assert report.feasible
    assert report.design is not None
    assert predict(plan.with_design(report.design), IMAGES[:32], seed=1).mse <= 1.1 * loose
    assert report.read_power_w < predict(plan, IMAGES[:32], seed=1).read_power_w  # type: ignore[operator]
    impossible = optimize(plan, IMAGES, seed=1, mse_budget=1e-6 * loose, mc_max_trials=0)
    assert not impossible.feasible
    assert impossible.levers


def test_what_the_table_cannot_do_says_so() -> None:
    plan = plan_with()
    for more in ({"per": "column"}, {"yield_p": 0.9}, {"adc_bits": (4, 8)}):
        with pytest.raises(UnsupportedMethodError, match="table"):
            optimize(plan, IMAGES, seed=1, power_budget_w=1.0, **more)  # type: ignore[arg-type]


def test_a_law_with_a_closed_form_still_uses_it() -> None:
    report = optimize(digits_plan("cnn"), IMAGES, seed=1, power_budget_w=1.0, mc_max_trials=0)
    assert not any("closed form" in note for note in report.notes)
