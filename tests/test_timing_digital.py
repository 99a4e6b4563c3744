"""Layers on a digital engine: cycles of SCALE-Sim, ports by hand, energy counted one by one, engines in order, what is refused."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot

from accelsim import (
    Accelerator,
    InfeasibleError,
    Network,
    Plan,
    SpecError,
    evaluate,
    load_embedded,
    load_onnx,
    load_report,
    optimize,
    place,
    predict,
    simulate,
)
from accelsim.chip import Chip, rollup
from accelsim.cli import main
from accelsim.ledger import inferences_per_second
from accelsim.page.document import page_of
from accelsim.report.record_codec import arrays_of, decoded, encoded
from accelsim.report.time_report import TimeReport
from accelsim.timing import mapping
from accelsim.timing.budgets import check_latency, rest_of
from accelsim.timing.digital import ENGINE, engine_s, limits_ps, runs_of, streamed
from accelsim.timing.energy import image_ledger, leakage
from accelsim.timing.graph import PS
from accelsim.timing.grid import Grid, Reach, Span, needs
from accelsim.timing.mapping import TimedPlan, map_in_time
from accelsim.timing.recurrence import Times, recurrence
from accelsim.timing.simulate import times_of
from accelsim.timing.systolic import gemm_cycles, groups_of, layer_cycles, systolic_cycles
from accelsim.timing.trace import chrome_trace
from accelsim.values_in_memory import accesses_of
from devices.base.errors import RunFolderError
from validation.networks import DataMissingError, data_folder
from workloads.operators.matrix import Conv, MatrixOperator

FREE = ("chip.digital.weights=none", "chip.lanes=none")
"""Memory is never in the way, and poolings take no time."""
FLOWS = ("output", "weight", "input")
MIXED = """
schema = 1
name = "mixed"
use = "isaac"
[chip.digital]
rows = 16
columns = 8
weights = { bits = 32 }
[chip.parts.mac]
per = "unit"
action = "multiply_add"
energy_j = "1 pJ"
leakage_w = "1 uW"
area_m2 = "500 um2"
tag = "derived"
source = "a test"
"""


def digital(*changes: str, net: str = "fashion_cnn") -> Plan:
    network, _ = load_embedded(net)
    return place(network, Accelerator.preset("digital_45nm", set=changes), calibration=None)


def mixed(names: list[str], *changes: str, net: str = "fashion_resnet") -> Plan:
    """Return a plan with some layers on ISAAC's arrays and the named ones on an engine."""
    network, _ = load_embedded(net)
    words = "".join(f'[layers."{name}"]\nmemory.weights.use = "sram_45nm_32kb"\n' for name in names)
    return place(network, Accelerator.from_text(MIXED + words, set=changes), calibration=None)


def model(name: str) -> Network:
    try:
        return load_onnx(data_folder() / "models" / f"{name}.onnx")
    except DataMissingError as missing:
        pytest.skip(str(missing))


# time


@pytest.mark.parametrize("net", ["fashion_cnn", "fashion_resnet"])
@pytest.mark.parametrize("flow", FLOWS)
def test_a_network_takes_the_cycles_of_scale_sim(net: str, flow: str) -> None:
    """Memory never in the way, n images take n times the sum of all layers' cycles, on one array of 1 GHz."""
    plan, n = digital(*FREE, f"chip.digital.dataflow={flow}", net=net), 3
    cycles = sum(systolic_cycles(plan.network, rows=32, columns=32, dataflow=flow).values())  # type: ignore[arg-type]
    for engine in ("bound", "recurrence", "des"):
        report = simulate(plan, engine=engine, images=n)  # type: ignore[arg-type]
        assert report.ii_s == pytest.approx(cycles * 1e-9, rel=1e-12)
        assert report.makespan_s == pytest.approx(n * cycles * 1e-9, rel=1e-12)
        assert report.bottleneck == ENGINE
        assert report.latency_s == pytest.approx(cycles * 1e-9, rel=1e-12)


@pytest.mark.parametrize(("name", "most_s"), [("resnet8_cifar10", 1e-3), ("mobilenet_v2", 1.0), ("em_unet", 1.0)])
def test_networks_from_elsewhere_run_on_it(name: str, most_s: float) -> None:
    network = model(name)
    plan = place(network, Accelerator.preset("digital_45nm"), calibration=None)
    report = simulate(plan, engine="des", images=2)
    assert report.makespan_s == simulate(plan, images=2).makespan_s
    bare = sum(systolic_cycles(network, rows=32, columns=32).values()) * 1e-9
    assert bare < report.latency_s < most_s
    macs = sum(node.operator.n_macs for _, node in network.matrix_layers())  # type: ignore[attr-defined]
    assert report.multipliers_work == pytest.approx(macs / 1024 / (report.ii_s * 1e9), rel=1e-12)
    assert report.energy_by_component["register_writes"] == pytest.approx(0.36e-12 * macs, rel=1e-12)


def test_groups_are_products_of_their_own() -> None:
    network = model("mobilenet_v2")
    grouped = [n.operator for _, n in network.matrix_layers() if isinstance(n.operator, Conv) and n.operator.geometry.groups > 1]
    assert grouped
    for operator, flow in itertools.product(grouped[:4], FLOWS):
        g = operator.geometry
        one = gemm_cycles(operator.n_positions, g.n_out // g.groups, operator.n_rows, rows=32, columns=32, dataflow=flow)  # type: ignore[arg-type]
        assert layer_cycles(operator, rows=32, columns=32, dataflow=flow) == g.groups * one  # type: ignore[arg-type]


@pytest.mark.parametrize(("net", "name"), [("fashion_cnn", "fc1"), ("fashion_cnn", "conv2")])
def test_a_narrow_port_takes_its_bits_over_its_width(net: str, name: str) -> None:
    plan = digital("chip.digital.weights.bits=16", "chip.digital.weights.t_access_s=3 ns", net=net)
    layer = next(layer for layer in plan.layers if layer.name == name)
    by_hand = math.ceil(layer.operator.weights.size * 8 / 16) * 3000
    row = next(row for row in simulate(plan, images=1).stages if row.stage == name)
    assert limits_ps(layer, plan.accelerator.chip)["weights"] == by_hand  # type: ignore[arg-type]
    assert row.work_s == pytest.approx(by_hand * PS)
    assert row.limit == "weights"


def test_check_bits_pass_the_port_too() -> None:
    """SECDED (72, 64): eight numbers of 8 bits are 72."""
    changes = ("memory.weights.ecc.kind=secded", "chip.digital.weights.bits=8")
    plan = digital(*changes)
    for layer in plan.layers:
        bits = layer.operator.weights.size / 8 * 72
        assert limits_ps(layer, plan.accelerator.chip)["weights"] == math.ceil(bits / 8) * 1000  # type: ignore[arg-type]


def test_weights_that_are_read_for_each_position_pass_it_as_often() -> None:
    changes = ("memory.weights.read_each=position", "memory.weights.faults.kind=persistent", "chip.digital.weights.bits=64")
    once, each = digital("chip.digital.weights.bits=64"), digital(*changes)
    for a, b in zip(once.layers, each.layers):
        one, many = (limits_ps(layer, plan.accelerator.chip)["weights"] for layer, plan in ((a, once), (b, each)))  # type: ignore[arg-type]
        assert many == one * a.operator.n_positions if a.operator.weights.size % 8 == 0 else many > one


def test_a_slow_memory_sets_the_time_of_an_access_and_its_port_may_say_otherwise() -> None:
    slow = digital("memory.weights.use=rram_22nm", "chip.clock_hz=4 GHz")
    memory = next(access.memory for access in accesses_of(slow.layers[0]))
    assert memory.read_time_s > 0.25e-9
    n = math.ceil(slow.layers[0].operator.weights.size * 8 / 256)
    assert limits_ps(slow.layers[0], slow.accelerator.chip)["weights"] == round(n * memory.read_time_s * 1e12)  # type: ignore[arg-type]
    told = digital("memory.weights.use=rram_22nm", "chip.digital.weights.t_access_s=0.25 ns")
    assert limits_ps(told.layers[0], told.accelerator.chip)["weights"] == n * 250  # type: ignore[arg-type]


def test_activations_and_sums_have_ports_too() -> None:
    changes = (
        "memory.activations.use=sram_45nm_32kb", "memory.partial_sums.use=sram_45nm_32kb", "mapping.array.n_rows=64",
        "chip.digital.activations.bits=8", "chip.digital.partial_sums.bits=4",
    )  # fmt: skip
    plan = digital(*changes)
    layer = next(layer for layer in plan.layers if layer.name == "fc1")
    blocks = math.ceil(layer.operator.n_rows / 64)
    limits = limits_ps(layer, plan.accelerator.chip)  # type: ignore[arg-type]
    assert limits["activations"] == 2 * layer.n_inputs * 1000  # written and read, a number an access
    assert limits["partial_sums"] == 2 * 2 * layer.operator.n_columns * blocks * 1000


def test_one_engine_takes_the_sum_and_an_engine_each_the_largest() -> None:
    shared, each = digital(*FREE), digital(*FREE, "chip.digital.shared=false")
    works = [limits_ps(layer, shared.accelerator.chip)["multiply"] for layer in shared.layers]  # type: ignore[arg-type]
    together, apart = simulate(shared), simulate(each)
    assert together.ii_s == pytest.approx(sum(works) * PS)
    assert apart.ii_s == pytest.approx(max(works) * PS)
    assert (together.n_multipliers, apart.n_multipliers) == (1024, 4 * 1024)
    assert apart.bottleneck == "fc1"
    assert simulate(each, engine="des").makespan_s == apart.makespan_s
    assert engine_s(shared.layers, shared.accelerator.chip) == pytest.approx(together.ii_s)
    assert engine_s(each.layers, each.accelerator.chip) == pytest.approx(apart.ii_s)


@pytest.mark.parametrize("seed", range(10))
def test_engines_are_in_order_on_mixed_networks(seed: int) -> None:
    """Bound <= recurrence <= des; the same to the picosecond where nothing is contended for; energy is the same everywhere."""
    rng = np.random.default_rng(seed)
    network, _ = load_embedded("fashion_resnet")
    names = [node.name for _, node in network.matrix_layers()]
    chosen = names if seed == 0 else [name for name in names if rng.random() < 0.5] or names[:1]
    changes = [f"chip.digital.rows={rng.integers(2, 40)}", f"chip.digital.columns={rng.integers(2, 40)}"]
    changes += [f"chip.digital.dataflow={rng.choice(FLOWS)}", f"chip.digital.weights.bits={rng.choice([1, 8, 64])}"]
    changes += [f"chip.digital.shared={'true' if rng.random() < 0.7 else 'false'}"]
    changes += [] if seed % 2 else ["chip.bus_bits=none", "chip.off_chip=none"]
    plan, copies = mixed(chosen, *changes), "balanced" if seed % 3 else "given"
    reports = [simulate(plan, engine=engine, images=4, copies=copies) for engine in ("bound", "recurrence", "des")]  # type: ignore[arg-type]
    spans = [report.makespan_s for report in reports]
    assert spans[0] <= spans[1] * (1.0 + 1e-12)
    assert spans[1] <= spans[2] * (1.0 + 1e-12)
    if not map_in_time(plan, copies=copies).contended:  # type: ignore[arg-type]
        assert spans[1] == spans[2]
    leaks = [report.energy_by_cause["leak"] for report in reports]
    moving = [report.energy_j - leak for report, leak in zip(reports, leaks)]
    assert moving[0] == pytest.approx(moving[1], rel=1e-12)
    assert moving[1] == pytest.approx(moving[2], rel=1e-12)


def max_at_once(times: Times) -> int:
    """Return the most layers that a run's engine had at one time."""
    changes = []
    for i, stage in enumerate(times.graph.stages):
        if ENGINE in stage.holds and stage.hold_ps is not None:
            starts = times.start[i].tolist()
            holds = np.tile(stage.hold_ps, times.n_images).tolist()
            changes += [(a, 1) for a in starts] + [(a + h, -1) for a, h in zip(starts, holds)]
    return int(max(np.cumsum([step for _, step in sorted(changes)])))


def test_two_runs_of_layers_wait_for_one_engine() -> None:
    plan = mixed(["conv1", "fc1"], "chip.digital.rows=1", "chip.digital.columns=1", "chip.bus_bits=none", net="fashion_cnn")
    timed = map_in_time(plan)
    assert runs_of([m.step for m in timed.steps]) == [[0], [4]]
    assert ENGINE in timed.contended
    report = simulate(plan, engine="des")
    assert report.waited_s[ENGINE] > 0.0
    assert any(ENGINE in line for line in simulate(plan).provenance.warnings)
    times, alone = times_of(plan, engine="des"), times_of(plan)
    assert max_at_once(times) == 1
    assert max_at_once(alone) == 2  # the recurrence knows no contention between runs
    works = {row.stage: row.work_s for row in report.stages}
    assert report.ii_s >= works["conv1"] + works["fc1"] - 1e-12
    one = mixed(["fc1"], "chip.bus_bits=none", "chip.off_chip=none", net="fashion_cnn")
    assert not map_in_time(one).contended
    assert simulate(one, engine="des").waited_s == {}


def test_the_bound_knows_that_a_run_waits_for_what_is_between_its_layers() -> None:
    """Poolings between layers of one engine, one image at a time: the closed form is what happens."""
    for net in ("fashion_cnn", "fashion_resnet"):
        plan = digital(net=net)
        lower, exact = (simulate(plan, engine=engine, images=5) for engine in ("bound", "des"))  # type: ignore[arg-type]
        assert lower.ii_s == pytest.approx(exact.ii_s, rel=1e-12)
        assert lower.makespan_s == pytest.approx(exact.makespan_s, rel=1e-12)
        assert lower.ii_s > engine_s(plan.layers, plan.accelerator.chip)
        assert lower.bottleneck == ENGINE


def test_a_run_is_finished_for_one_image_before_the_next() -> None:
    timed = map_in_time(digital())
    times = recurrence(timed.graph, np.zeros(3, np.int64))
    spans = []
    for i, stage in enumerate(timed.graph.stages):
        if ENGINE in stage.holds:
            spans += [(int(a), int(b)) for a, b in zip(times.start[i], times.finish[i])]
    spans.sort()
    assert all(b <= c for (_, b), (c, _) in itertools.pairwise(spans))
    first = [timed.graph.stages[i].name for i in np.argsort([t[0] for t in times.start]) if ENGINE in timed.graph.stages[i].holds]
    assert first == ["conv1", "conv2", "fc1", "fc2"]


@pytest.mark.parametrize("rooms", [1, 2, "unbounded"])
def test_no_size_of_buffers_stops_it(rooms: str | int) -> None:
    plan = digital(net="fashion_resnet")
    assert simulate(plan, rooms=rooms).makespan_s == simulate(plan, rooms=rooms, engine="des").makespan_s  # type: ignore[arg-type]
    part = mixed(["block1.conv1", "block3.down"])
    simulate(part, engine="des", images=3)


def test_a_map_that_is_one_token_needs_and_gives_all() -> None:
    made, read = Grid(rows=3, columns=4, width=4, is_one=True), Grid(rows=6, columns=5, width=2)
    reach = Reach(rows=Span.window(3, 6, kernel=2, stride=2), columns=Span.window(4, 5, kernel=2, stride=1))
    need, release = needs(reach, made, read)
    assert (need.tolist(), release.tolist()) == ([read.n_tokens], [read.n_tokens])
    assert (made.n_tokens, made.pixels.tolist()) == (1, [12])
    back = Reach(rows=Span.window(6, 3, kernel=1, stride=1, pad=0), columns=Span.window(5, 4, kernel=1, stride=1))
    need, release = needs(back, read, made)
    assert set(need.tolist()) == {1}
    assert release.tolist() == [0] * (read.n_tokens - 1) + [1]


# energy


def counted_one_by_one(plan: Plan) -> dict[str, float]:
    """Return the energy of an image by component, each action counted by loops over what the network does."""
    chip = plan.accelerator.chip
    assert chip is not None
    assert chip.digital is not None
    macs = bits = loads = 0
    for layer in plan.layers:
        operator, word = layer.operator, layer.site.memory.word  # type: ignore[attr-defined]
        groups = groups_of(operator)
        for _ in range(operator.n_positions):
            for kernel in operator.weights:
                macs += kernel.size
                bits += kernel.size * word.n_bits * 8
        for _ in range(groups):
            for first in range(0, operator.n_columns // groups, chip.digital.columns):  # each fold of columns reads all inputs
                assert first < operator.n_columns
                loads += operator.n_positions * int(np.prod(operator.weights.shape[1:])) * 8
    fj = 1e-15
    stored = sum(math.prod(layer_shape) for layer_shape in _kept(plan)) * 8
    return {
        "multiplier": bits * 12.3828125 * fj, "adder": macs * 32 * 6.5625 * fj, "register_writes": macs * 0.36e-12,
        "buffer": loads * 0.23375e-12, "buffer_writes": stored * 0.23375e-12,
        "memory_weights": sum(layer.operator.weights.size for layer in plan.layers) * 8 * 0.23375e-12,
    }  # fmt: skip


def _kept(plan: Plan) -> list[tuple[int, ...]]:
    """Return the shapes of what is written into the buffer: results of layers and poolings."""
    return [node.shape for node in plan.graph.nodes if isinstance(node.operator, MatrixOperator) or "Pool" in node.operator.kind]


def agrees(plan: Plan) -> bool:
    found, counted = image_ledger(map_in_time(plan)).by("component"), counted_one_by_one(plan)
    return all(math.isclose(found[name], joules, rel_tol=1e-9) for name, joules in counted.items())


def test_energy_is_counts_times_costs_counted_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = digital()
    assert agrees(plan)
    real: Callable[..., dict[str, int]] = mapping.actions_of
    monkeypatch.setattr(mapping, "actions_of", lambda *a, **k: real(*a, **k) | {"multiply_bits": 2 * real(*a, **k)["multiply_bits"]})
    assert not agrees(plan)  # a planted double count


@pytest.mark.parametrize(("flow", "folds"), [("weight", 2), ("output", 2), ("input", 1)])
def test_inputs_stream_once_for_each_fold_of_columns(flow: str, folds: int) -> None:
    """conv2 of fashion_cnn has more results than 32: with inputs staying they are read once."""
    plan = digital(f"chip.digital.dataflow={flow}")
    layer = max(plan.layers, key=lambda one: one.operator.n_columns if one.operator.n_columns <= 64 else 0)
    assert 32 < layer.operator.n_columns <= 64
    assert streamed(layer, plan.accelerator.chip.digital) == folds * layer.operator.n_positions * layer.operator.n_rows  # type: ignore[union-attr, arg-type]


def test_values_in_a_memory_are_not_paid_in_the_buffer_again() -> None:
    bare, kept = digital(), digital("memory.activations.use=sram_45nm_32kb")
    report, plain = simulate(kept), simulate(bare)
    assert "buffer" not in report.energy_by_component
    n = sum(layer.n_inputs for layer in kept.layers)
    assert report.energy_by_component["memory_activations"] == pytest.approx(2 * n * 8 * 0.23375e-12)
    wide = math.prod(kept.graph.nodes[0].shape)  # conv1 goes through a pooling, the last layer nowhere
    assert wide * 8 * 0.23375e-12 < report.energy_by_component["buffer_writes"] < plain.energy_by_component["buffer_writes"]


def test_words_of_fewer_bits_take_less_of_a_multiplier_and_of_the_memory() -> None:
    wide, narrow = (image_ledger(map_in_time(plan)).by("component") for plan in (digital(), digital("memory.weights.word.n_bits=4")))
    for name in ("multiplier", "memory_weights"):
        assert narrow[name] == pytest.approx(0.5 * wide[name])
    assert narrow["adder"] == wide["adder"]


@pytest.mark.parametrize("policy", ["always_on", "gate_after_last", "gate_idle"])
def test_every_view_of_the_ledger_has_the_same_total(policy: str) -> None:
    for plan in (digital(f"chip.leakage={policy}"), mixed(["stem", "fc", "block2.conv1"], f"chip.leakage={policy}")):
        report = simulate(plan, images=3)
        for view in (report.energy_by_component, report.energy_by_layer, report.energy_by_cause):
            assert sum(view.values()) == pytest.approx(report.energy_j, rel=1e-12)
        assert report.trace_power_w is not None
        assert report.trace_edges_s is not None
        assert float((report.trace_power_w * np.diff(report.trace_edges_s)).sum()) == pytest.approx(3 * report.energy_j, rel=1e-9)


def test_units_leak_while_they_are_powered() -> None:
    def leaked(policy: str, *more: str) -> tuple[float, TimedPlan, float]:
        timed = map_in_time(digital(f"chip.leakage={policy}", "chip.parts.vector.leakage_w=0 W", *more))
        times = recurrence(timed.graph, np.zeros(2, np.int64))
        return leakage(timed, times, times.makespan_ps, 2).total_j, timed, times.makespan_ps * PS

    watts = 1024 * (5e-6 + 2.4e-6)
    always, timed, span = leaked("always_on")
    assert always == pytest.approx(watts * span, rel=1e-12)
    idle, *_ = leaked("gate_idle")
    works = sum(stage.work_ps for stage in timed.graph.stages if ENGINE in stage.holds)
    assert idle == pytest.approx(watts * 2 * works * PS, rel=1e-12)
    last, *_ = leaked("gate_after_last")
    assert idle < last <= always
    each, own, _ = leaked("gate_idle", "chip.digital.shared=false")
    assert own.n_engines == 4
    assert each == pytest.approx(idle, rel=1e-12)  # four times the units, each a part of the time


def test_area_is_that_of_the_units() -> None:
    report = simulate(digital())
    own = 1024 * (396.875e-12 + 278e-12 + 48 * 5.98e-12) + 32 * 278e-12
    assert report.area_m2 == pytest.approx(own, rel=1e-12)
    chip = Accelerator.preset("digital_45nm").chip
    assert chip is not None
    assert sum(rollup(chip, 1, 3).area_m2.values()) == pytest.approx(3 * (own - 32 * 278e-12) + 32 * 278e-12)


def test_the_prediction_and_the_ledger_tell_the_same_energy_of_memories() -> None:
    network, samples = load_embedded("fashion_cnn")
    plan = place(network, Accelerator.preset("digital_45nm"), calibration=samples[:8])
    power = predict(plan, samples[:8], seed=1).power_by_component["memories"]
    timed = simulate(plan, samples=samples[:8])
    assert power / inferences_per_second(plan) == pytest.approx(timed.energy_by_component["memory_weights"], rel=1e-12)
    assert timed.energy_j == pytest.approx(simulate(plan).energy_j, rel=1e-12)  # no cells whose energy hangs on data


def test_the_rate_is_that_of_what_is_slower() -> None:
    slow = mixed(["fc"], "chip.digital.rows=1", "chip.digital.columns=1", "chip.digital.clock_hz=100 kHz")
    assert inferences_per_second(slow) == pytest.approx(1.0 / engine_s(slow.layers, slow.accelerator.chip))
    quick = mixed(["fc"])
    reads = max(layer.n_reads for layer in quick.layers if not layer.is_digital)
    assert inferences_per_second(quick) == pytest.approx(1.0 / (reads * 100e-9))
    assert inferences_per_second(digital("drive.rate_hz=50 Hz")) == 50.0


EXPONENTIAL = """
schema = 1
name = "learned"
use = "digital_45nm"
[memory.weights]
error_rate_p = 3e-6
law = { kind = "exponential" }
"""


def test_a_profile_written_by_hand_is_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Layers at voltages of their own: the memory takes sum of n v^2 times what a bit takes at the lowest voltage without errors."""
    volts = {"conv1": 1.0, "conv2": 0.95, "fc1": 0.9, "fc2": 0.97}
    layers = "".join(f'[layers."{name}"]\nmemory.weights.v_rel = {v}\n' for name, v in volts.items())
    head = 'schema = 1\nname = "hand"\nuse = "digital_45nm"\n[memory.weights]\nuse = "sram_14nm"\nread_energy_j = "0.1 pJ"\nv_rel = 1.0\n'
    (tmp_path / "hand.toml").write_text(head + layers)
    network, samples = load_embedded("fashion_cnn")
    np.savez(tmp_path / "x.npz", x=samples.x[:8])
    arguments = ["fashion_cnn", "--spec", str(tmp_path / "hand.toml"), "--inputs", str(tmp_path / "x.npz"), "--seed", "1", "--json"]
    assert main(["evaluate", *arguments]) == 0
    told = json.loads(capsys.readouterr().out)
    sizes = {node.name: node.operator.weights.size for _, node in network.matrix_layers()}  # type: ignore[attr-defined]
    by_hand = sum(sizes[name] * 8 * v**2 * 0.1e-12 for name, v in volts.items())
    assert told["energy_by_component"]["memory_weights"] == pytest.approx(by_hand, rel=1e-9)
    assert told["predicted"]["power_by_component"]["memories"] == pytest.approx(by_hand / 8.34e-6, rel=1e-9)  # at the engine's rate


def test_an_energy_budget_without_any_crossbar_is_met_in_the_ledger() -> None:
    network, samples = load_embedded("fashion_cnn")
    plan = place(network, Accelerator.from_text(EXPONENTIAL), calibration=samples[:16])
    before = simulate(plan)
    memory, rest = before.energy_by_component["memory_weights"], rest_of(map_in_time(plan))
    assert rest + memory == pytest.approx(before.energy_j, rel=1e-12)
    budget = rest + 0.7 * memory
    found = optimize(plan, samples[:32], seed=7, energy_budget_j=budget, latency_budget_s=1e-5, area_budget_m2=1e-6, mc_max_trials=0)
    assert found.design is not None
    after = simulate(plan.with_design(found.design))
    assert after.energy_j == pytest.approx(budget, rel=1e-6)
    assert after.energy_by_component["memory_weights"] == pytest.approx(0.7 * memory, rel=1e-4)
    assert found.read_power_w == pytest.approx(0.7 * memory * inferences_per_second(plan), rel=1e-4)
    for asked, told in (
        ({"energy_budget_j": rest}, "the interval \\(chip.digital\\) smaller"),
        ({"energy_budget_j": budget, "latency_budget_s": 1e-6}, "give 'fc1' a larger chip.digital.rows, columns or clock_hz"),
        ({"energy_budget_j": budget, "area_budget_m2": 1e-8}, "fewer chip.digital.rows or columns"),
    ):
        with pytest.raises(InfeasibleError, match=told):
            optimize(plan, samples[:32], seed=7, mc_max_trials=0, **asked)  # type: ignore[arg-type]


def test_a_latency_budget_names_the_memory_that_is_in_the_way() -> None:
    with pytest.raises(InfeasibleError, match=r"a larger chip\.digital\.weights\.bits"):
        check_latency(digital("chip.digital.weights.bits=8"), 1e-6)


# what is asked and refused


@pytest.mark.parametrize(
    ("changes", "words"),
    [(("chip.digital=none",), "there is no [chip.digital]"),
     (("chip.digital.sum_bits=none",), "digital.sum_bits: absent"),
     (("chip.digital.rows=0",), "rows"), (("chip.digital.dataflow=row",), "dataflow"), (("chip.digital.weights.bits=0",), "bits")],
)  # fmt: skip
def test_an_engine_that_cannot_be_is_refused(changes: tuple[str, ...], words: str) -> None:
    with pytest.raises(SpecError) as told:
        Accelerator.preset("digital_45nm", set=changes)
    assert words in str(told.value)


def test_layers_without_an_engine_are_refused_with_the_lever() -> None:
    network, _ = load_embedded("fashion_cnn")
    words = '[memory.weights]\nuse = "sram_45nm_32kb"\n'
    for base, more, told in (
        ("puma", "", 'chip.digital: absent, but layer \'conv1\''), ("memse", "", '`use = "digital_45nm"`'),
        ("puma", "[chip.digital]\nrows = 4\ncolumns = 4\n", "chip.parts: none takes energy for a multiply-add"),
        ("mnsim_default", "[chip.digital]\nrows = 4\ncolumns = 4\n", "chip.serial: layer 'conv1'"),
    ):
        spec = Accelerator.from_text(f'schema = 1\nname = "none"\nuse = "{base}"\n{words}{more}')
        plan = place(network, spec, calibration=None)
        with pytest.raises(SpecError) as error:
            simulate(plan)
        assert told in str(error.value)
    with pytest.raises(SpecError, match="that are on arrays"):
        simulate(digital(), copies={"conv1": 2})


@pytest.mark.parametrize(
    "change", ["chip.digital.clock_hz=1e-3", "chip.digital.clock_hz=1e-12", "chip.digital.weights.t_access_s=1e9 s", "chip.clock_hz=1e-2"]
)
def test_times_beyond_what_can_be_counted_are_refused(change: str) -> None:
    """63 bits of picoseconds end at 9e6 s: beyond, sums would turn negative."""
    with pytest.raises(SpecError, match="times up to 4e\\+06 s can be told"):
        simulate(digital(change), images=1000)
    network, _ = load_embedded("fashion_cnn")
    for other in ("drive.t_read_s=1e3 s", "drive.t_read_s=1e9 s", "drive.t_read_s=1e14 s", "chip.clock_hz=1e-3"):
        with pytest.raises(SpecError, match="times up to 4e\\+06 s can be told"):
            simulate(place(network, Accelerator.preset("isaac", set=(other,)), calibration=None), images=100)


def test_energy_that_is_not_known_is_told() -> None:
    spec = Accelerator.from_text(
        'schema = 1\nname = "x"\nuse = "digital_45nm"\n[memory.weights]\nuse = "exponential_published"\nerror_rate_p = 1e-3\n'
    )
    network, _ = load_embedded("fashion_cnn")
    report = simulate(place(network, spec, calibration=None))
    assert "memory_weights" not in report.energy_by_component
    assert any("memory.weights.read_energy_j: absent, so 52,080 reads" in line for line in report.provenance.warnings)


def test_engines_that_nobody_uses_are_on_the_chip_all_the_same() -> None:
    plan = mixed([])
    report, bare = simulate(plan), simulate(mixed([], "chip.parts.mac.area_m2=0 m2"))
    assert report.area_m2 - bare.area_m2 == pytest.approx(128 * 500e-12)
    assert report.multipliers_work == 0.0
    assert isinstance(plan.accelerator.chip, Chip)


def test_records_written_before_there_were_engines_are_read() -> None:
    report = simulate(digital(), images=1)
    raw, arrays = json.loads(json.dumps(encoded(report))), arrays_of(report)
    for name in ("n_multipliers", "multipliers_work"):
        del raw[name]
    for stage in raw["stages"]:
        del stage["limit"]
    old = decoded(TimeReport, raw, arrays=arrays)
    assert (old.n_multipliers, old.multipliers_work, old.stages[0].limit) == (0, None, None)
    assert old.energy_j == report.energy_j
    del raw["energy_j"]
    with pytest.raises(RunFolderError, match="energy_j"):
        decoded(TimeReport, raw, arrays=arrays)


def test_reports_print_draw_save_and_load(tmp_path: Path) -> None:
    network, samples = load_embedded("fashion_cnn")
    spec = Accelerator.preset("digital_45nm", set=("chip.digital.weights.bits=8",))
    plan = place(network, spec, calibration=samples[:8])
    report = evaluate(plan, samples[:8], seed=1)
    text = str(report.time)
    assert "waiting for weights in" in text
    assert "arrays" not in "".join(name for name, _ in report.rows())
    for what in ("stages", *report.time.pictures()):
        report.time.plot(what=what)
    report.plot()
    pyplot.close("all")
    folder = tmp_path / "run"
    report.save(folder)
    assert "multipliers work" in page_of(folder)
    assert str(load_report(folder)) == str(report)
    simulate(plan).save(tmp_path / "time")
    record = json.loads((tmp_path / "time" / "record.json").read_text())
    assert record is not None
    assert chrome_trace(recurrence(map_in_time(plan).graph, np.zeros(1, np.int64)))["traceEvents"]
