"""MNSIM's five networks on its default chip: its latencies, energies and areas, and what buffers that are too small cost (T12)."""

import dataclasses
from itertools import pairwise

import pytest

from accelsim import Accelerator, InfeasibleError, Plan, SpecError, load_embedded, place, simulate
from accelsim.timing.mapping import map_in_time
from accelsim.timing.serial import tile_position
from validation.mnsim import PRINTED, lenet, networks, plan_of, slowdown


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    return {name: plan_of(network) for name, network in networks().items()}


@pytest.mark.parametrize("name", PRINTED)
def test_a_network_of_mnsim_takes_its_time_energy_and_area(plans: dict[str, Plan], name: str) -> None:
    """T12: within 2 % with nothing shared and unbounded buffers; the time is within 0.3 %, without a fitted number."""
    report = simulate(plans[name], images=1, rooms="unbounded")
    printed = PRINTED[name]
    assert report.latency_s * 1e9 == pytest.approx(printed.latency_ns, rel=0.003)
    assert report.energy_j * 1e3 == pytest.approx(printed.energy_mj, rel=0.02)
    assert report.area_m2 * 1e6 == pytest.approx(printed.area_mm2, rel=0.002)
    shares = report.energy_by_component
    if name == "lenet":
        assert shares["adc"] / report.energy_j == pytest.approx(0.45, abs=0.01)
        assert (shares["input_buffer"] + shares["output_buffer"]) / report.energy_j == pytest.approx(0.53, abs=0.015)


def test_every_constant_of_the_chain_matters() -> None:
    """Negative control: other converters, words or links leave the published time, so the agreement is no accident."""
    plan, printed = plan_of(lenet()), PRINTED["lenet"].latency_ns
    for change in ("t_convert_s=6.25 ns", "serial.word_bits=128", "serial.t_word_s=15 ns", "serial.t_drive_s=1 ns", "clock_hz=1 GHz"):
        other = dataclasses.replace(plan, accelerator=plan.accelerator.with_set(f"chip.{change}"))
        latency_ns = simulate(other, images=1, rooms="unbounded").latency_s * 1e9
        assert abs(latency_ns / printed - 1.0) > 0.03, change


def test_small_buffers_slow_the_shortcuts_down(plans: dict[str, Plan]) -> None:
    """ResNet-18 with a row a buffer takes half as long again, as another simulator saw (1.53); its shortcut's buffer costs the most."""
    free = simulate(plans["resnet18"], images=1, rooms="unbounded").latency_s * 1e12
    makespan, culprit, relieved = slowdown(plans["resnet18"], 1)
    assert 1.4 < makespan / free < 1.6
    assert culprit == "pool1"  # read by the first convolution and by the shortcut around two of them
    assert relieved < 0.92 * makespan
    assert simulate(plans["resnet18"], images=1).latency_s * 1e12 == free


@pytest.mark.parametrize("name", PRINTED)
def test_events_and_recurrence_agree(plans: dict[str, Plan], name: str) -> None:
    """Nothing is shared, so the events must be the recurrence to the picosecond."""
    by_events, by_recurrence = (simulate(plans[name], engine=engine, images=2) for engine in ("des", "recurrence"))
    assert by_events.makespan_s == by_recurrence.makespan_s
    assert by_events.n_events < 30_000


def test_tiles_fill_growing_squares() -> None:
    """Neighbours in number are neighbours, and the first s squared fill the square of side s."""
    places = [tile_position(number) for number in range(400)]
    assert all(abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1 for a, b in pairwise(places))
    for side in (1, 2, 5, 20):
        assert set(places[: side * side]) == {(row, column) for row in range(side) for column in range(side)}
    assert places[:7] == [(0, 0), (0, 1), (1, 1), (1, 0), (2, 0), (2, 1), (2, 2)]


def test_tiles_of_layers_are_apart(plans: dict[str, Plan]) -> None:
    """LeNet: 2, 2, 4, 2 and 2 tiles of layers, one of each pooling."""
    timed = map_in_time(plans["lenet"])
    assert [len(m.tiles) for m in timed.steps] == [2, 1, 2, 1, 4, 2, 2]
    assert timed.n_tiles == 14
    starts = [tile for m in timed.steps for tile in m.tiles]
    assert starts == list(range(14))


def test_what_the_chain_needs_is_asked_for() -> None:
    network, _ = load_embedded("fashion_cnn")
    spec = Accelerator.preset("mnsim_default")
    with pytest.raises(InfeasibleError, match=r"tiles of their own, of 4 there are; raise chip.n_tiles and chip.serial.side"):
        simulate(place(network, spec.with_set("chip.serial.side=2"), calibration=None))
    with pytest.raises(SpecError, match=r"drive.t_read_s, chip.t_convert_s: absent, but chip.serial needs both"):
        simulate(place(network, spec.with_set("chip.t_convert_s=none"), calibration=None))
    with pytest.raises(SpecError, match=r"mapping.array: chip.serial needs arrays of a size"):
        simulate(place(network, spec.with_set("mapping.array=none"), calibration=None))


def test_copies_divide_the_time_of_a_layer(plans: dict[str, Plan]) -> None:
    """But for the starts of rows, which each copy has, and longer ways between more tiles."""
    twice = simulate(plans["lenet"], copies={"conv0": 2}, images=1, rooms="unbounded")
    once = simulate(plans["lenet"], images=1, rooms="unbounded")
    work = {report: next(row.work_s for row in found.stages if row.stage == "conv0") for report, found in (("2", twice), ("1", once))}
    assert 0.5 * work["1"] < work["2"] < 0.53 * work["1"]
