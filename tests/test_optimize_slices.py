"""Slices as a choice of the optimizer: against enumeration, against plans placed by hand, with area, and what is refused."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from accelsim.accelerator import Accelerator
from accelsim.cli_inputs import slicing_of
from accelsim.design import Design
from accelsim.optimizer.optimize import optimize
from accelsim.optimizer.problem import Infeasible
from accelsim.optimizer.slices import Choice, best_of
from accelsim.placement import Plan, place
from accelsim.prediction.predict import predict
from devices.base.errors import InfeasibleError, SpecError, UnsupportedMethodError
from tests.digits import CALIBRATION, digits_network, digits_samples

ADC = (
    "sense.adc.kind=uniform", "sense.adc.n_bits=7", "sense.adc.conversion.kind=walden", "sense.adc.conversion.fom_j=1e-15",
    "drive.t_read_s=1e-7", "cell.programming.error_rel=0.02",
)  # fmt: skip
SLICINGS = [(6,), (3, 3), (2, 2, 2)]


def plan_of(*more: str, design: Design | None = None) -> Plan:
    return place(
        digits_network("cnn"), Accelerator.preset("memse", set=(*ADC, *more)), calibration=digits_samples()[CALIBRATION], design=design
    )


def random_options(random: np.random.Generator, n_layers: int) -> list[list[Choice]]:
    """Return layers with two slicings at four conductances: error falls and power rises with conductance, cells with slices."""
    found = []
    for _ in range(n_layers):
        scale, own = random.uniform(0.1, 3.0), []
        for slicing, n_arrays in (((8,), int(random.integers(1, 4))), ((4, 4), int(random.integers(4, 9)))):
            better = random.uniform(0.2, 0.9) if len(slicing) > 1 else 1.0
            for g in (1.0, 2.0, 4.0, 8.0):
                power = g * len(slicing) * random.uniform(0.8, 1.2)
                own.append(Choice(slicing=slicing, g_used_siemens=g, mse=better * scale / g**2, power_w=power, n_arrays=n_arrays))
        found.append(own)
    return found


def within(budget: float) -> Callable[[float, float], tuple[float, float] | Infeasible]:
    return lambda mse, power: (mse, power) if power <= budget else Infeasible(at="power", floor=power, budget=budget)


@pytest.mark.parametrize("most_arrays", [None, 13])
@pytest.mark.parametrize("seed", range(6))
def test_the_choice_is_nearly_the_best_of_all_and_the_gap_is_no_promise_broken(seed: int, most_arrays: int | None) -> None:
    """All 8^4 combinations of four layers: none is better than the bound, and the choice is within its own gap of the best."""
    options, value = random_options(np.random.default_rng(seed), 4), within(22.0)
    _, (mse, _), gap = best_of(options, value, 0, most_arrays=most_arrays)  # type: ignore[misc]
    best = np.inf
    for combination in product(*options):
        total, power = sum(c.mse for c in combination), sum(c.power_w for c in combination)
        if power <= 22.0 and (most_arrays is None or sum(c.n_arrays for c in combination) <= most_arrays):
            best = min(best, total)
    assert best <= mse * (1.0 + 1e-12)
    assert mse / (1.0 + gap) <= best * (1.0 + 1e-12), "the bound is below every combination"
    assert mse <= 1.25 * best
    if most_arrays is not None:
        free = best_of(options, value, 0)
        assert not isinstance(free, Infeasible)
        assert free[1][0] <= mse * (1.0 + 1e-9)


def test_fewer_arrays_than_any_choice_takes_are_refused() -> None:
    options = random_options(np.random.default_rng(0), 3)
    with pytest.raises(InfeasibleError, match="the area budget has room for 2"):
        best_of(options, within(100.0), 0, most_arrays=2)


def test_the_design_is_better_than_any_slicing_for_all_layers_at_a_common_conductance() -> None:
    """At the same power, predicted; and the design placed anew, from a file, is the plan that was promised."""
    plan, images = plan_of(f"mapping.slice_bits={list(SLICINGS[0])}"), digits_samples()[:32]
    now = predict(plan, images, seed=1).read_power_w
    budget = 0.7 * now
    report = optimize(
        plan, images, seed=1, verify=images, power_budget_w=budget, slice_bits=SLICINGS, calibration=digits_samples()[CALIBRATION],
        mc_max_trials=400, mc_rel_error=0.05,
    )  # fmt: skip
    assert report.feasible
    assert report.design is not None
    assert set(report.design.slice_bits) == {layer.name for layer in plan.layers}
    again = Design.from_text(report.design.to_toml())
    assert again.slice_bits == report.design.slice_bits
    placed = plan_of(f"mapping.slice_bits={list(SLICINGS[0])}", design=again)
    found = predict(placed, images, seed=2)
    assert found.mse == pytest.approx(report.mse, rel=0.05)
    assert found.read_power_w <= 1.02 * budget
    assert report.mc is not None
    assert report.mc.mse == pytest.approx(found.mse, rel=0.07)
    for slicing in SLICINGS:
        alike = plan_of(f"mapping.slice_bits={list(slicing)}")
        for share in (0.3, 0.5, 0.7, 0.9):
            used = {layer.name: share * 25e-6 for layer in alike.layers}
            other = predict(alike.with_design(Design(g_used_siemens=used)), images, seed=2)
            if other.read_power_w <= budget:
                assert other.mse > 0.98 * found.mse, (slicing, share)


def test_a_design_with_other_slices_is_placed_not_moved() -> None:
    plan = plan_of("mapping.slice_bits=[6]")
    design = Design(g_used_siemens={"conv1": 20e-6}, slice_bits={"conv1": (3, 3)})
    with pytest.raises(SpecError, match="place"):
        plan.with_design(design)
    placed = plan_of("mapping.slice_bits=[6]", design=design)
    assert placed.layers[0].site.encoding.slice_bits == (3, 3)
    assert placed.layers[1].site.encoding.slice_bits == (6,)
    assert Accelerator.from_text(placed.accelerator.to_toml()) == placed.accelerator


def test_what_cannot_be_chosen_is_refused() -> None:
    plan, images = plan_of("mapping.slice_bits=[6]"), digits_samples()[:16]
    own = digits_samples()[CALIBRATION]
    with pytest.raises(SpecError, match="calibration samples that the plan was placed with"):
        optimize(plan, images, seed=1, power_budget_w=1.0, slice_bits=SLICINGS, calibration=images)
    with pytest.raises(SpecError, match="each once"):
        optimize(plan, images, seed=1, power_budget_w=1.0, slice_bits=[(6,), (6,)], calibration=own)
    with pytest.raises(UnsupportedMethodError, match="second run"):
        optimize(plan, images, seed=1, power_budget_w=1.0, slice_bits=SLICINGS, calibration=own, adc_bits=(4, 6))
    for text in ("4+", "a", "0+4", "99", "-4"):
        with pytest.raises(SpecError, match="--slices"):
            slicing_of(text)
    assert [slicing_of(text) for text in ("8", "4+4", "one")] == [(8,), (4, 4), ()]
    with pytest.raises(SpecError, match="slice_bits"):
        Design.from_text('schema = 1\n[g_used_siemens]\nconv1 = "20 uS"\n[slice_bits]\nconv1 = [4, 0]\n')
