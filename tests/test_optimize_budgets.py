"""Budgets of a whole inference: energy and time against the simulation, area against its parts, and what is said where they are not met."""

import pytest

from accelsim.accelerator import Accelerator
from accelsim.chip import rollup
from accelsim.cli import main
from accelsim.optimizer.optimize import optimize
from accelsim.placement import Plan, place
from accelsim.timing.area import chip_area
from accelsim.timing.budgets import arrays_within, check_area, check_latency, read_share
from accelsim.timing.mapping import map_in_time
from accelsim.timing.simulate import simulate
from devices.base.errors import InfeasibleError, SpecError
from tests.digits import CALIBRATION, digits_network, digits_samples

ANALOG = (
    "cell.programming.kind=state_independent", "cell.programming.error_rel=0.01", "mapping.encoding=differential",
    "mapping.slice_bits=none", "drive.slice_bits=none", "drive.dac=none", "sense.adc=none",
)  # fmt: skip
CONVERTED = (*ANALOG[:4], "drive.slice_bits=none", "drive.dac.n_bits=8", "sense.adc.n_bits=8", "sense.adc.range=max")


def plan_of(*settings: str) -> Plan:
    chip = Accelerator.preset("isaac", set=settings)
    return place(digits_network("cnn"), chip, calibration=digits_samples()[CALIBRATION])


@pytest.mark.parametrize("settings", [ANALOG, CONVERTED], ids=["analog", "converted"])
def test_a_design_within_an_energy_budget_takes_just_that_energy(settings: tuple[str, ...]) -> None:
    """Simulated with its own conductances: 98 to 100.5 % of what was allowed; the conductances of before take more (the control)."""
    plan, images = plan_of(*settings), digits_samples()[:32]
    before = simulate(plan, samples=images, images=8, seed=1)
    cells = before.energy_by_component["memristors"]
    budget = before.energy_j - 0.6 * cells
    report = optimize(plan, images, seed=1, verify=images, energy_budget_j=budget, mc_max_trials=0)
    assert report.feasible
    assert report.design is not None
    after = simulate(plan.with_design(report.design), samples=images, images=8, seed=1)
    assert budget - 0.05 * cells < after.energy_j < budget + 0.02 * cells
    assert before.energy_j > budget
    assert any("are for what is not reading" in note for note in report.notes)


def test_what_an_energy_budget_leaves_for_reading_is_the_rest() -> None:
    """Energy of an inference is what is read times its time, and the rest: the same rest from any budget."""
    plan = plan_of(*ANALOG)
    small, large = (read_share(plan, budget) for budget in (8e-9, 12e-9))
    assert small.rest_j == large.rest_j
    interval = (12e-9 - 8e-9) / (large.read_power_w - small.read_power_w)
    assert interval == pytest.approx(max(layer.n_reads for layer in plan.layers) * 100e-9, rel=1e-9)
    simulated = simulate(plan, samples=digits_samples()[:8], images=1, seed=1)
    beside = simulated.energy_j - simulated.energy_by_component["memristors"]
    assert small.rest_j == pytest.approx(beside, rel=1e-6)


def test_an_energy_that_everything_else_exceeds_is_refused_with_the_floor() -> None:
    with pytest.raises(InfeasibleError, match=r"everything but reading takes .* an inference, and the budget is 1 nJ"):
        optimize(plan_of(*ANALOG), digits_samples()[:16], seed=1, energy_budget_j=1e-9)
    with pytest.raises(SpecError, match="exactly one budget"):
        optimize(plan_of(*ANALOG), digits_samples()[:16], seed=1, energy_budget_j=1e-8, power_budget_w=1.0)
    with pytest.raises(SpecError, match="above 0"):
        read_share(plan_of(*ANALOG), -1.0)


def test_a_latency_budget_is_that_of_one_simulated_image() -> None:
    plan = plan_of(*ANALOG)
    latency = simulate(plan, images=1).latency_s
    assert check_latency(plan, 1.0) == pytest.approx(latency, rel=1e-9)
    assert check_latency(plan, latency * (1.0 + 1e-6)) == pytest.approx(latency, rel=1e-9)
    with pytest.raises(InfeasibleError, match=r"mapping\.replicas"):
        check_latency(plan, latency * (1.0 - 1e-6))
    faster = plan_of(*ANALOG, "mapping.replicas=4")
    assert check_latency(faster, 1.0) < latency


def test_an_area_budget_is_that_of_the_parts() -> None:
    plan = plan_of(*ANALOG)
    parts = sum(rollup(plan.accelerator.chip, 168).area_m2.values())  # type: ignore[arg-type]
    assert parts * 1e6 == pytest.approx(85.42, abs=0.01)
    assert check_area(plan, 1.0) == pytest.approx(parts, rel=1e-12)
    assert simulate(plan, images=1).area_m2 == pytest.approx(parts, rel=1e-12)
    with pytest.raises(InfeasibleError, match=r"85\.4\d mm2 on \d+ tiles, and the budget is 80 mm2"):
        check_area(plan, 80e-6)


def test_converters_count_once() -> None:
    """ISAAC has a part for its ADCs; without it their own model says 0.0012 mm2 for each of the arrays in use."""
    with_part = chip_area(map_in_time(plan_of(*CONVERTED)))
    assert with_part["adc"] == pytest.approx(168 * 12 * 8 * 0.0012e-6, rel=1e-9)
    chip = Accelerator.preset("isaac", set=CONVERTED)
    text = chip.to_toml().split("[chip.parts.adc]")
    bare = Accelerator.from_text(text[0] + text[1][text[1].index("[chip.parts") :])
    timed = map_in_time(place(digits_network("cnn"), bare, calibration=digits_samples()[CALIBRATION]))
    assert timed.chip.columns_per_adc == 128
    assert chip_area(timed)["adc"] == pytest.approx(timed.n_arrays * 0.0012e-6, rel=1e-9)


def test_an_area_has_room_for_whole_tiles() -> None:
    plan = plan_of(*ANALOG, "chip.n_tiles=none")
    timed = map_in_time(plan)
    area = check_area(plan, 1.0)
    once = sum(part.area_m2 * part.count for part in timed.chip.parts if part.per == "chip")
    a_tile = (area - once) / timed.n_tiles
    for tiles in (1, 2, 7):
        assert arrays_within(plan, once + (tiles + 1e-6) * a_tile) == tiles * timed.chip.arrays_per_tile
        assert arrays_within(plan, once + (tiles - 1e-6) * a_tile) == (tiles - 1) * timed.chip.arrays_per_tile


@pytest.mark.slow
def test_slices_are_chosen_for_a_small_chip() -> None:
    """Without a limit of area the design takes more arrays than with one; both keep to the energy."""
    plan = plan_of(*CONVERTED, "mapping.slice_bits=[6]", "chip.n_tiles=none", "chip.slices=apart", "mapping.array.n_rows=16",
                   "mapping.array.n_columns=16", "chip.arrays_per_core=1", "chip.cores_per_tile=1")  # fmt: skip
    images, own = digits_samples()[:32], digits_samples()[CALIBRATION]
    least, most = (check_area(plan_of(*CONVERTED, f"mapping.slice_bits={bits}", "chip.n_tiles=none", "chip.slices=apart",
                   "mapping.array.n_rows=16", "mapping.array.n_columns=16", "chip.arrays_per_core=1", "chip.cores_per_tile=1"), 1.0)
                   for bits in ("[6]", "[2,2,2]"))  # fmt: skip
    budget = 0.5 * (least + most)
    report = optimize(plan, images, seed=1, verify=images, power_budget_w=1e-2, area_budget_m2=budget, slice_bits=[(6,), (2, 2, 2)],
                      calibration=own, mc_max_trials=0)  # fmt: skip
    assert report.feasible
    assert report.design is not None
    assert any("mm2" in note for note in report.notes)
    free = optimize(plan, images, seed=1, verify=images, power_budget_w=1e-2, slice_bits=[(6,), (2, 2, 2)], calibration=own,
                    mc_max_trials=0)  # fmt: skip
    assert free.mse is not None
    assert report.mse is not None
    assert free.mse <= 1.05 * report.mse
    with pytest.raises(InfeasibleError, match="room for"):
        optimize(plan, images, seed=1, verify=images, power_budget_w=1e-2, area_budget_m2=0.5 * least, slice_bits=[(6,), (2, 2, 2)],
                 calibration=own, mc_max_trials=0)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--energy-budget", "3 W"], "--energy-budget '3 W'"),
        (["--energy-budget", "-3 J"], "need an energy above 0"),
        (["--latency-budget", "0 s", "--power-budget", "1 mW"], "need a time above 0"),
        (["--area-budget", "1 mm", "--power-budget", "1 mW"], "--area-budget '1 mm'"),
        (["--area-budget", "0 mm2", "--power-budget", "1 mW"], "need an area above 0"),
        (["--area-budget", "1 mm2", "--power-budget", "1 mW"], "chip: absent"),
        (["--slices", "4,4", "--power-budget", "1 mW"], "--slices '4,4'"),
        (["--slices", "8", "8", "--power-budget", "1 mW"], "each once"),
    ],
)
def test_what_is_asked_wrongly_is_one_message(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", "fashion_cnn", "--seed", "1", *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""


def test_a_shared_converter_is_the_stage_that_counts() -> None:
    """A ramp of 6 bits at 1 GHz for 64 columns: 4.096 us, forty times a read; with one for each column reads count again."""
    ramp = ("sense.adc.kind=ramp", "sense.adc.n_bits=6", "sense.adc.clock_hz=1e9", "sense.adc.range=max", "chip.t_convert_s=none")
    own = (*ANALOG[:5], "drive.dac=none")
    slow, fast = (
        simulate(plan_of(*own, *ramp, f"chip.columns_per_adc={n}"), images=1).latency_s for n in ("64", "none")
    )
    assert fast < slow
    reads = sum(layer.n_reads for layer in plan_of(*own, *ramp).layers[:1])
    assert slow > reads * 64 * 64e-9
