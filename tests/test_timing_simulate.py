"""Plans in time: published and proven numbers of whole networks, energy that adds up, maps that fit or say so."""

import dataclasses
import json
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from matplotlib import pyplot

from accelsim import (
    Accelerator,
    DeadlockError,
    InfeasibleError,
    Network,
    Plan,
    SamplesError,
    SpecError,
    evaluate,
    load_embedded,
    load_onnx,
    load_report,
    monte_carlo,
    place,
    predict,
    simulate,
)
from accelsim.chip import Part, rollup
from accelsim.ledger import inferences_per_second
from accelsim.timing.bound import bound
from accelsim.timing.critical import critical
from accelsim.timing.des import simulate_events
from accelsim.timing.energy import image_ledger, leakage
from accelsim.timing.graph import Edge, Stage, TokenGraph
from accelsim.timing.grid import Reach, Span
from accelsim.timing.mapping import map_in_time
from accelsim.timing.occupancy import peaks, shares
from accelsim.timing.power import power_trace
from accelsim.timing.recurrence import Times, recurrence
from accelsim.timing.simulate import MAX_EVENTS, Engine, expected_events, peak_ops_hz, times_of
from accelsim.timing.steps import _moved
from accelsim.timing.trace import chrome_trace
from validation.networks import DataMissingError, data_folder
from workloads.operators.reshape import Pad, Slice

TOPOLOGIES = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NO_SHARING = ("chip.bus_bits=none", "chip.off_chip=none", "chip.mesh=none")
_LEAK = ("chip.parts.adc.leakage_w=1mW", "chip.parts.edram.leakage_w=2mW", "chip.parts.hyper_transport.leakage_w=3mW")


def topology(name: str) -> Network:
    return load_onnx(TOPOLOGIES / f"light_{name}.onnx", fold_limit_bytes=2**30)


@pytest.fixture(scope="module")
def resnet50() -> Plan:
    """ResNet-50 on PUMA with nothing shared, and the time of a product as the reference counts it: 16 reads of 128 ns."""
    return place(topology("resnet50"), Accelerator.preset("puma").with_set(*NO_SHARING), calibration=None)


@pytest.fixture(scope="module")
def small() -> Plan:
    network, _ = load_embedded("fashion_resnet")
    return place(network, Accelerator.preset("isaac"), calibration=None)


def at_once(n: int) -> np.ndarray:
    return np.zeros(n, np.int64)


def test_isaac_adds_up() -> None:
    """T1: The published sums: 24.08 mW a core, 329.8 mW a tile, 65.8 W, 85.4 mm2; 41.29 TOPS at 16 bits."""
    chip = Accelerator.preset("isaac").chip
    assert chip is not None
    whole = rollup(chip, 168)
    assert sum(whole.power_w.values()) == pytest.approx(65.81, abs=5e-3)
    assert sum(whole.area_m2.values()) == pytest.approx(85.42e-6, abs=5e-9)
    by_level = {per: sum(part.count * part.power_w for part in chip.parts if part.per == per) for per in ("array", "core", "tile")}
    core = by_level["core"] + chip.arrays_per_core * by_level["array"]
    assert core == pytest.approx(24.08e-3, abs=5e-6)
    assert chip.cores_per_tile * core + by_level["tile"] == pytest.approx(329.81e-3, abs=5e-6)
    areas = {per: sum(part.count * part.area_m2 for part in chip.parts if part.per == per) for per in ("array", "core", "tile")}
    assert areas["core"] + chip.arrays_per_core * areas["array"] == pytest.approx(0.01312e-6, rel=1e-3)
    tops = 168 * chip.arrays_per_tile * 128 * 16 * 2 / 1.6e-6 / 1e12
    assert tops == pytest.approx(41.29, abs=5e-3)


@pytest.mark.parametrize(("copies", "interval_ms", "latency_ms"), [("given", 25.690112, 26.505), ("balanced", 0.458752, 0.850)])
def test_resnet50_takes_the_published_times(resnet50: Plan, copies: str, interval_ms: float, latency_ms: float) -> None:
    """T5: the interval is the largest work; latency with tokens as wide as copies, as the prototype had them."""
    plan = dataclasses.replace(resnet50, accelerator=resnet50.accelerator.with_set("chip.read_stages=1"))
    timed = map_in_time(plan, copies=copies)  # type: ignore[arg-type]
    times = recurrence(timed.graph, at_once(1))
    assert times.makespan_ps / 1e9 == pytest.approx(latency_ms, abs=5e-4)
    assert bound(timed.graph).interval_ps / 1e9 == pytest.approx(interval_ms, abs=1e-9)
    eight = recurrence(timed.graph, at_once(8))
    assert np.diff(np.sort(eight.done_ps))[-1] / 1e9 == pytest.approx(interval_ms, abs=1e-9)
    if copies == "given":
        assert timed.n_arrays == 8 * 1576
        assert timed.graph.n_tokens < 100_000


def test_events_agree_with_the_recurrence_on_resnet50(resnet50: Plan) -> None:
    """T3: To the picosecond, in under 200,000 events."""
    timed = map_in_time(resnet50, copies="balanced")
    run = simulate_events(timed.graph, at_once(2))
    expected = recurrence(timed.graph, at_once(2))
    for a, b in zip(run.times.leave, expected.leave):
        np.testing.assert_array_equal(a, b)
    for spec in (resnet50.accelerator, Accelerator.preset("puma"), Accelerator.preset("isaac")):  # nothing shared, and buses shared
        one = map_in_time(dataclasses.replace(resnet50, accelerator=spec)).graph
        n_events = simulate_events(one, at_once(1)).n_events
        assert n_events < 200_000
        assert n_events <= expected_events(one, 1)


def test_the_fill_of_a_product_adds_up_along_the_longest_path(resnet50: Plan) -> None:
    """T3b: Two more stages of 128 ns: 50 layers on the longest path, 12.8 us."""
    plain = dataclasses.replace(resnet50, accelerator=resnet50.accelerator.with_set("chip.read_stages=1"))
    for copies in ("given", "balanced"):
        with_fill = recurrence(map_in_time(resnet50, copies=copies).graph, at_once(1)).makespan_ps  # type: ignore[arg-type]
        without = recurrence(map_in_time(plain, copies=copies).graph, at_once(1)).makespan_ps  # type: ignore[arg-type]
        assert with_fill - without == 50 * 256_000


def test_a_product_of_puma_takes_its_published_time_and_energy() -> None:
    """T14: 128 ns x (16 reads + 3 stages - 1) = 2,304 ns, a new one every 2,048 ns, 43.97 nJ."""
    network, _ = load_embedded("fashion_cnn")
    timed = map_in_time(place(network, Accelerator.preset("puma").with_set(*NO_SHARING), calibration=None), rooms="unbounded")
    stage = next(s for s in timed.graph.stages if s.name == "fc2")
    assert stage.service_ps.tolist() == [2_048_000]
    assert stage.work_ps + stage.fill_ps == 2_304_000
    energy = image_ledger(timed)
    (fc2,) = (m for m in timed.steps if m.step.name == "fc2")
    assert fc2.n_arrays == 8
    assert energy.of_layers()["fc2"]["product"] == pytest.approx(43.97e-9, rel=1e-12)


def test_resnet50_takes_the_published_crossbar_energy(resnet50: Plan) -> None:
    """T16: 314,512 products of 43.97 nJ."""
    energy = image_ledger(map_in_time(resnet50)).by("component")["product"]
    assert energy == pytest.approx(314_512 * 43.97e-9, rel=1e-12)
    assert energy == pytest.approx(13.829e-3, abs=5e-7)


def test_narrower_tokens_are_never_slower_and_take_the_same_interval_and_energy(resnet50: Plan) -> None:
    """T3b: latency falls with the token, interval and energy do not."""
    latencies = []
    for token in (112, 14, 4, 1):
        timed = map_in_time(resnet50, token=token)
        latencies.append(recurrence(timed.graph, at_once(1)).makespan_ps)
        assert bound(timed.graph).interval_ps == 25_690_112_000
        assert image_ledger(timed).total_j == image_ledger(map_in_time(resnet50)).total_j
    assert latencies == sorted(latencies, reverse=True)
    assert len(set(latencies)) == 4


def test_too_little_room_deadlocks_or_costs_time(resnet50: Plan) -> None:
    """Skips of ResNet-50: one row deadlocks and says where; two rows cost time, sized ones none."""
    sized = recurrence(map_in_time(resnet50, copies="balanced").graph, at_once(4)).makespan_ps
    free = recurrence(map_in_time(resnet50, copies="balanced", rooms="unbounded").graph, at_once(4)).makespan_ps
    two = recurrence(map_in_time(resnet50, copies="balanced", rooms=2).graph, at_once(4)).makespan_ps
    assert free <= sized <= 1.01 * free
    assert two > 1.05 * sized
    with pytest.raises(DeadlockError, match=r"the stages wait for each other: .* has no room behind it"):
        simulate(resnet50, copies="balanced", rooms=1)


@pytest.mark.parametrize(
    "name", ["bvlc_alexnet", "vgg19", "resnet50", "squeezenet", "densenet121", "inception_v1", "inception_v2", "shufflenet", "zfnet512"]
)
def test_every_topology_maps_and_runs(name: str) -> None:
    plan = place(topology(name), Accelerator.preset("puma").with_set(*NO_SHARING), calibration=None)
    report = simulate(plan, copies="balanced", images=2)
    assert report.latency_s > report.ii_s > 0.0
    assert report.energy_j > 0.0
    assert all(row.peak_tokens is not None and (row.room_tokens is None or row.peak_tokens <= row.room_tokens) for row in report.stages)


@pytest.mark.parametrize("name", ["digit_cnn", "em_unet", "mouse_unet", "mobilenet_v2", "resnet8_cifar10", "resnet20_cifar10"])
def test_every_model_maps_and_runs(name: str) -> None:
    try:
        network = load_onnx(data_folder() / "models" / f"{name}.onnx")
    except DataMissingError as error:
        pytest.skip(str(error))
    report = simulate(place(network, Accelerator.preset("isaac"), calibration=None), engine="recurrence", images=2)
    assert report.latency_s > 0.0


def assert_conserved(times: Times) -> None:
    for stage, share in zip(times.graph.stages, shares(times)):
        assert share.busy_ps + share.blocked_ps + share.starved_ps == times.makespan_ps
        assert min(share.busy_ps, share.blocked_ps, share.starved_ps) >= 0
        assert share.busy_ps >= stage.work_ps * times.n_images
    for stage, most in zip(times.graph.stages, peaks(times)):
        assert stage.room is None or most <= stage.room


@pytest.mark.parametrize("name", ["zfnet512", "resnet50", "inception_v2"])
def test_sized_buffers_do_not_slow_images_down(name: str) -> None:
    """Images follow each other as fast as the slowest stage takes them; with sizes that only just do not deadlock, ZFNet's would not."""
    plan = place(topology(name), Accelerator.preset("isaac").with_set(*NO_SHARING), calibration=None)
    timed = map_in_time(plan, copies="balanced")
    assert all(stage.room is not None for stage in timed.graph.stages[:-1])
    done = np.sort(recurrence(timed.graph, at_once(6)).done_ps)
    least = bound(timed.graph).interval_ps
    assert least <= done[-1] - done[-2] <= 1.002 * least
    if name == "zfnet512":
        tight = recurrence(map_in_time(plan, copies="balanced", rooms=1).graph, at_once(6)).done_ps
        assert np.diff(np.sort(tight))[-1] > 1.02 * least


@pytest.mark.parametrize("seed", range(12))
def test_parts_of_maps_are_read_where_they_are(seed: int) -> None:
    """Slices with steps and paddings on the way, one after the other, by moving a map that holds the numbers of its pixels."""
    rng = np.random.default_rng(seed)
    shape: tuple[int, ...] = (2, int(rng.integers(6, 11)), int(rng.integers(6, 11)))
    rows, columns = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    where = np.broadcast_to((rows * shape[2] + columns)[None, ..., None], (*shape, 1)).astype(float)
    seen: Reach | None = Reach(rows=Span.same(shape[1]), columns=Span.same(shape[2]))
    for _ in range(3):
        operator: Slice | Pad
        if rng.random() < 0.5:
            steps = [int(rng.choice([1, 2, -1])) for _ in range(2)]
            operator = Slice((slice(None), slice(None, None, steps[0]), slice(1 if steps[1] > 0 else None, None, steps[1])))
        else:
            operator = Pad(((1, 0), *((int(rng.integers(0, 3)), int(rng.integers(0, 3))) for _ in range(2))), constant=-1.0)
        read, shape = shape, operator.out_shape(shape)
        where = operator.forward(where)
        seen = _moved(operator, read, shape, seen)
    assert seen is not None
    found = where[-1, ..., 0]
    width = columns.shape[1]
    for row in range(shape[1]):
        for column in range(shape[2]):
            if found[row, column] >= 0:
                pixel = divmod(int(found[row, column]), width)
                spans = (seen.rows, row), (seen.columns, column)
                assert tuple(int(span.first[i]) for span, i in spans) == tuple(int(span.last[i]) for span, i in spans) == pixel
            else:
                assert min(seen.rows.last[row], seen.columns.last[column]) < 0


def test_shares_and_peaks_are_conserved(small: Plan) -> None:
    """T18: busy + blocked + starved = makespan, and no buffer holds more than its room."""
    timed = map_in_time(small, copies="balanced")
    assert_conserved(recurrence(timed.graph, at_once(5)))
    assert_conserved(simulate_events(timed.graph, at_once(5)).times)


@pytest.mark.parametrize("copies", ["given", "balanced"])
def test_engines_are_in_order(small: Plan, copies: str) -> None:
    engines = ("bound", "recurrence", "des")
    reports = [simulate(small, engine=engine, images=4, copies=copies) for engine in engines]  # type: ignore[arg-type]
    assert reports[0].makespan_s <= reports[1].makespan_s <= reports[2].makespan_s
    assert reports[0].ii_s <= reports[1].ii_s * (1 + 1e-12)
    assert reports[1].ii_s <= reports[2].ii_s * (1 + 1e-12)
    assert len({report.energy_by_component["adc"] for report in reports}) == 1


def test_shared_buses_and_links_cost_time() -> None:
    """A mesh with slow links: events see the contention, the recurrence does not, the bound counts the work."""
    network, _ = load_embedded("fashion_resnet")
    mesh = ("chip.mesh.flit_bits=1", "chip.mesh.clock_hz=160 MHz", "chip.mesh.hop_cycles=2")
    tiles = ("chip.arrays_per_core=1", "chip.cores_per_tile=1", "chip.n_tiles=none")
    plan = place(network, Accelerator.preset("isaac").with_set(*mesh, *tiles), calibration=None)
    alone, together = simulate(plan, engine="recurrence", images=3), simulate(plan, engine="des", images=3)
    assert together.makespan_s > 1.01 * alone.makespan_s
    assert any(name.startswith("link") for name in together.waited_s)
    moved = {stage.stage for stage in together.stages if " to " in stage.stage}
    assert moved


def test_copies_speed_up_until_something_else_is_slowest(small: Plan) -> None:
    """T10: Doubling the copies of the slowest layer halves the interval until the next is slowest, and never slows an image."""
    waves = 28 * 1.6e-6
    others = max(row.work_s for row in simulate(small, images=1).stages if row.stage != "stem")
    alone = float("inf")
    for copies in (1, 2, 4, 7, 14, 28):
        report, one = simulate(small, copies={"stem": copies}, images=4), simulate(small, copies={"stem": copies}, images=1)
        assert report.ii_s == pytest.approx(max(waves * -(-28 // copies), others), rel=1e-9)
        assert one.latency_s <= alone * 1.01  # what reads the layer waits for wider tokens
        alone = one.latency_s


def test_copies_within_a_budget_are_the_best_there_are(small: Plan) -> None:
    """The greedy choice against every way to spend the arrays beyond one copy of each layer."""
    tiles = ("chip.n_tiles=24", "chip.n_chips=1", "chip.cores_per_tile=1", "chip.arrays_per_core=1")
    plan = dataclasses.replace(small, accelerator=small.accelerator.with_set(*tiles))
    found = bound(map_in_time(plan, copies="budget").graph).interval_ps
    one = {m.step.name: m.n_arrays for m in map_in_time(small).steps if m.step.layer is not None}
    spare = 24 - sum(one.values())

    def works(name: str) -> list[int]:
        """Return a layer's work with one copy, two, ... as many as fit."""
        most = 1 + spare // one[name]
        graphs = (map_in_time(small, copies={name: n}, rooms="unbounded").graph for n in range(1, most + 1))
        return [next(stage.work_ps for stage in graph.stages if stage.name == name) for graph in graphs]

    every = {name: works(name) for name in one}
    least = min(
        max(every[name][n] for name, n in zip(one, more))
        for more in product(*(range(len(every[name])) for name in one))
        if sum(n * one[name] for name, n in zip(one, more)) <= spare
    )
    assert found == least


def test_weights_that_do_not_fit_are_written_for_each_image() -> None:
    network, _ = load_embedded("fashion_resnet")
    fits = simulate(place(network, Accelerator.preset("isaac"), calibration=None), images=3)
    tight = ("chip.n_tiles=1", "chip.n_chips=1", "chip.cores_per_tile=2", "chip.arrays_per_core=4")
    with pytest.raises(InfeasibleError, match=r"the weights take 20 arrays, of 8 there are.*raise chip.n_tiles.*set chip.t_write_s"):
        simulate(place(network, Accelerator.preset("isaac").with_set(*tight), calibration=None))
    spec = Accelerator.preset("isaac").with_set(*tight, "chip.t_write_s=1 us", "chip.endurance=1e9")
    plan = place(network, spec, calibration=None)
    timed = map_in_time(plan)
    assert timed.n_rounds > 1
    report = simulate(plan, images=3, engine="des")
    unshared = dataclasses.replace(plan, accelerator=spec.with_set(*NO_SHARING))
    assert simulate(unshared, images=3, engine="des").makespan_s == simulate(unshared, images=3).makespan_s <= report.makespan_s
    assert report.lifetime_images == 1e9
    assert report.ii_s > fits.ii_s
    rounds = [row for row in report.stages if row.stage.startswith("weights of round")]
    assert len(rounds) == timed.n_rounds
    assert report.ii_s >= sum(row.work_s for row in rounds)
    writing = recurrence(timed.graph, at_once(2))
    by_name = {stage.name: i for i, stage in enumerate(timed.graph.stages)}
    first_of_second = writing.start[by_name["weights of round 1"]][1]
    last = max(writing.leave[by_name[m.step.name]].reshape(2, -1)[0, -1] for m in timed.steps if m.round == timed.n_rounds - 1)
    assert first_of_second >= last


def test_writing_weights_takes_energy_and_wears_cells() -> None:
    """Every cell of every copy once an image, whichever engine; and the way of the weights over the link."""
    network, _ = load_embedded("fashion_resnet")
    tight = ("chip.n_tiles=1", "chip.n_chips=1", "chip.cores_per_tile=2", "chip.arrays_per_core=4")
    spec = Accelerator.preset("isaac").with_set(*tight, "chip.t_write_s=1 us", "chip.endurance=1e6")
    assert spec.chip is not None
    writer = Part(name="writer", per="tile", action="write", energy_j=1e-12, tag="derived", source="test")
    spec = dataclasses.replace(spec, chip=dataclasses.replace(spec.chip, parts=(*spec.chip.parts, writer)))
    plan = place(network, spec, calibration=None)
    n_cells = sum(layer.operator.weights.size * len(layer.site.encoding.parts) for layer in plan.layers)
    engines: tuple[Engine, ...] = ("bound", "recurrence", "des")
    for engine in engines:
        report = simulate(plan, engine=engine, images=2)
        assert report.energy_by_component["writer"] == pytest.approx(n_cells * 1e-12)
        assert report.energy_by_cause["write"] == pytest.approx(n_cells * 1e-12)
        assert report.lifetime_images == 1e6
    link = report.energy_of_layers["weights"]["hyper_transport"]
    assert link == pytest.approx(n_cells * 2 * 0.203125e-12)  # two bits a cell


def test_one_layer_that_is_too_large_is_refused() -> None:
    network, _ = load_embedded("fashion_cnn")
    spec = Accelerator.preset("isaac").with_set("chip.n_tiles=1", "chip.n_chips=1", "chip.cores_per_tile=1")
    with pytest.raises(InfeasibleError, match="layer 'fc1' takes 21 arrays, of 8 there are"):
        simulate(place(network, spec, calibration=None))


@pytest.mark.parametrize("policy", ["always_on", "gate_after_last", "gate_idle"])
def test_every_view_of_the_ledger_has_the_same_total(small: Plan, policy: str) -> None:
    """T16: by component, action, layer and cause, and under the power trace."""
    spec = small.accelerator.with_set(*_LEAK, f"chip.leakage={policy}", "chip.n_tiles=2")
    plan = dataclasses.replace(small, accelerator=spec)
    timed = map_in_time(plan)
    times = recurrence(timed.graph, at_once(3))
    image = image_ledger(timed)
    leaked = leakage(timed, times, times.makespan_ps, 3)
    whole = image.times(3).plus(leaked)
    assert all(entry.energy_j > 0.0 for entry in whole.entries.values())
    assert whole.total_j == pytest.approx(3 * image.total_j + leaked.total_j, rel=1e-15)
    for view in ("component", "action", "layer", "cause"):
        assert sum(whole.by(view).values()) == pytest.approx(whole.total_j, rel=1e-14)
    trace = power_trace(times, image, leaked, n_bins=137)
    assert trace.energy_j == pytest.approx(whole.total_j, rel=1e-12)
    assert np.all(trace.power_w >= 0.0)
    on = leakage(dataclasses.replace(timed, chip=dataclasses.replace(timed.chip, leakage="always_on")), times, times.makespan_ps, 3)
    assert leaked.total_j <= on.total_j * (1 + 1e-12)


def test_twice_the_unit_energies_are_twice_the_energy(small: Plan) -> None:
    chip = small.accelerator.chip
    assert chip is not None
    parts = tuple(dataclasses.replace(part, energy_j=2 * part.energy_j) for part in chip.parts)
    doubled = dataclasses.replace(map_in_time(small), chip=dataclasses.replace(chip, parts=parts))
    once, twice = image_ledger(map_in_time(small)).by("component"), image_ledger(doubled).by("component")
    for name, energy in once.items():
        assert twice[name] == pytest.approx((1 if name in ("adc", "dac") else 2) * energy)


def test_the_ledger_reproduces_the_predictors_read_power() -> None:
    """Cells, amplifiers and converters of the ledger, times the rate, are the read power of the prediction."""
    network, samples = load_embedded("fashion_cnn")
    chip = ("chip.clock_hz=1 GHz", "drive.t_read_s=100 ns", "sense.feedback_ohm=10 kohm", "drive.dac.kind=uniform", "drive.dac.n_bits=8")
    costs = ("drive.dac.conversion.kind=fixed", "drive.dac.conversion.energy_per_conversion_j=1 pJ", "drive.dac.conversion.source=test")
    plan = place(network, Accelerator.preset("memse").with_set(*chip, *costs, "cell.error_rel=0.001"), calibration=samples[:32])
    report = predict(plan, samples[64:96], seed=1, method="adjoint")
    energy = simulate(plan, samples=samples[64:96]).energy_by_component
    rate = inferences_per_second(plan)
    assert set(energy) == {"memristors", "amplifiers", "dac"}
    for name, found in (("memristors", "memristors"), ("amplifiers", "amplifiers"), ("dac", "dacs")):
        assert energy[name] * rate == pytest.approx(report.power_by_component[found], rel=2e-3)
    assert sum(energy.values()) * rate == pytest.approx(report.read_power_w, rel=2e-3)


def test_converters_are_paid_once(small: Plan) -> None:
    twice = small.accelerator.with_set("chip.parts.adc.action=convert", "chip.parts.adc.energy_j=1 pJ")
    with pytest.raises(SpecError, match=r"chip.parts.adc: takes energy for each 'convert', and so does the adc's own conversion"):
        image_ledger(map_in_time(dataclasses.replace(small, accelerator=twice)))


def test_the_critical_path_adds_up_and_slack_is_real(small: Plan) -> None:
    """The path's shares are the makespan; delaying a stage by less than its slack changes nothing, the critical one does."""
    timed = map_in_time(small, copies="balanced")
    times = recurrence(timed.graph, at_once(2))
    found = critical(times)
    assert sum(found.share_ps.values()) == times.makespan_ps
    assert min(found.slack_ps) == 0
    for s, stage in enumerate(timed.graph.stages):
        late = stage.service_ps.copy()
        late[-1] += found.slack_ps[s]  # of both images' last tokens, each within its own slack
        assert recurrence(with_service(timed.graph, s, late), at_once(2)).makespan_ps <= times.makespan_ps + found.slack_ps[s]
        if 0 < stage.work_ps * 2 == found.share_ps[stage.name]:
            slower = recurrence(with_service(timed.graph, s, stage.service_ps + 1000), at_once(2)).makespan_ps
            assert slower >= times.makespan_ps + 1000 * stage.n_tokens * 2


def test_slack_is_exact_on_a_fork() -> None:
    """Two ways to the same sum, 30 and 100 long: the short one has 70 of slack, and one more than that delays the end by one."""
    count = np.ones(1, np.int64)

    def stage(name: str, service: int, *sources: int) -> Stage:
        inputs = tuple(Edge(source=source, need=count, release=count) for source in sources)
        return Stage(name=name, layer=name, service_ps=np.array([service], np.int64), inputs=inputs)

    graph = TokenGraph(stages=(stage("in", 10), stage("short", 30, 0), stage("long", 100, 0), stage("sum", 5, 1, 2)))
    found = critical(recurrence(graph, at_once(1)))
    assert found.slack_ps == (0, 70, 0, 0)
    assert found.share_ps == {"in": 10, "short": 0, "long": 100, "sum": 5}
    assert recurrence(with_service(graph, 1, np.array([100])), at_once(1)).makespan_ps == 115
    assert recurrence(with_service(graph, 1, np.array([101])), at_once(1)).makespan_ps == 116


def with_service(graph: TokenGraph, s: int, service_ps: np.ndarray) -> TokenGraph:
    """Return the graph with other services of one stage."""
    changed = dataclasses.replace(graph.stages[s], service_ps=service_ps)
    return dataclasses.replace(graph, stages=(*graph.stages[:s], changed, *graph.stages[s + 1 :]))


def test_arrivals(small: Plan) -> None:
    busy = simulate(small, images=20)
    rare = simulate(small, images=20, arrivals=f"poisson:{0.05 / busy.ii_s}", seed=3)
    assert rare.latency_s < busy.latency_s
    assert rare.throughput_per_s < 0.2 * busy.throughput_per_s
    spaced = simulate(small, images=3, arrivals=[0.0, 0.1, 0.2], engine="des")
    alone = simulate(small, images=1)
    assert spaced.latency_quantiles["p100"] == pytest.approx(alone.latency_s)
    for wrong in ("poisson:-1", "poisson", "often", [0.0, 1.0], [0.2, 0.1, 0.3]):
        with pytest.raises(SpecError, match="arrivals"):
            simulate(small, images=3, arrivals=wrong)


def test_a_run_that_would_be_too_long_says_what_it_does(resnet50: Plan) -> None:
    report = simulate(resnet50, engine="des", images=40)
    (said,) = (line for line in report.provenance.warnings if "pixels wide" in line)
    assert "events would be too many" in said
    assert report.n_events <= MAX_EVENTS
    assert expected_events(map_in_time(resnet50).graph, 40) > MAX_EVENTS


def test_reports_print_save_and_load(small: Plan, tmp_path: Path) -> None:
    report = simulate(small, engine="des", images=3)
    report.save(tmp_path / "run")
    assert load_report(tmp_path / "run").to_json() == report.to_json()
    text = str(report)
    assert "bottleneck" in text
    assert "stem" in text
    assert json.loads(report.to_json())["kind"] == "simulate"
    times = "latency_s latency_quantiles ii_s throughput_per_s energy_j power_w area_m2 utilization bottleneck n_events warnings"
    assert set(f"{times} energy_by_component energy_by_layer".split()) <= report.to_json_dict().keys()
    for what in ("stages", "gantt", "power", "energy", "layers", "roofline"):
        report.plot(what=what)
    with pytest.raises(SpecError, match=r"need stages | gantt"):
        report.plot(what="pie")
    assert report.pictures() == ("gantt", "power", "energy", "layers", "roofline")
    assert simulate(small, engine="bound").pictures() == ("energy", "layers", "roofline")
    pyplot.close("all")
    assert report.bars is not None
    assert len(report.bars) <= 2000
    assert report.operations / report.ii_s <= report.peak_ops_hz == peak_ops_hz(map_in_time(small))


def test_the_trace_is_what_viewers_read(small: Plan) -> None:
    times = times_of(small, images=2)
    trace = chrome_trace(times)
    bars = [event for event in trace["traceEvents"] if event["ph"] == "X" and event["cat"] == "serve"]
    assert len(bars) == 2 * times.graph.n_tokens
    assert all({"name", "ph", "ts", "dur", "pid", "tid"} <= event.keys() and event["dur"] >= 0 for event in bars)
    named = {event["args"]["name"] for event in trace["traceEvents"] if event["name"] == "thread_name"}
    assert named == {stage.name for stage in times.graph.stages}
    read_back = json.loads(json.dumps(trace, allow_nan=False))
    assert read_back["displayTimeUnit"] in ("ms", "ns")
    for event in read_back["traceEvents"]:  # what the Trace Event Format asks of complete and metadata events
        assert {type(event[key]) for key in ("pid", "tid")} == {int}
        if event["ph"] == "X":
            assert isinstance(event["cat"], str)
            assert min(event["ts"], event["dur"]) >= 0
        else:
            assert event["ph"] == "M"
            assert event["name"] in ("process_name", "thread_name", "thread_sort_index")
            assert isinstance(event["args"], dict)
    ends = [event["ts"] + event["dur"] for event in bars]
    assert max(ends) * 1e6 == pytest.approx(max(int(finish[-1]) for finish in times.finish))


def test_plans_without_calibration_answer_nothing_else(small: Plan) -> None:
    _, samples = load_embedded("fashion_resnet")
    with pytest.raises(SamplesError, match="placed without calibration"):
        predict(small, samples[:4], seed=1)
    with pytest.raises(SamplesError, match="placed without calibration"):
        monte_carlo(small, samples[:4], seed=1)
    with pytest.raises(SamplesError, match="placed without calibration"):
        simulate(small, samples=samples[:4])


def test_specs_that_miss_something_say_what(small: Plan) -> None:
    network = small.network
    with pytest.raises(SpecError, match="chip: absent, but time needs it"):
        simulate(place(network, Accelerator.preset("memse"), calibration=None))
    with pytest.raises(SpecError, match=r"drive.t_read_s: absent"):
        simulate(place(network, Accelerator.preset("memse").with_set("chip.clock_hz=1 GHz"), calibration=None))
    spec = Accelerator.preset("memse").with_set("chip.clock_hz=1 GHz", "drive.t_read_s=1 us", "chip.columns_per_adc=8")
    with pytest.raises(SpecError, match=r"chip.t_convert_s: absent"):
        simulate(place(network, spec, calibration=None))
    with pytest.raises(SpecError, match=r"copies: .*need layers of the network"):
        simulate(small, copies={"stemm": 2})
    with pytest.raises(SpecError, match='random services need engine="des"'):
        simulate(small, service="exponential")


def test_one_table_has_error_time_and_energy() -> None:
    network, samples = load_embedded("fashion_cnn")
    spec = Accelerator.preset("memse").with_set("chip.clock_hz=1 GHz", "drive.t_read_s=100 ns", "cell.error_rel=0.003")
    plan = place(network, spec, calibration=samples[:32])
    report = evaluate(plan, samples[64:96], seed=1, method="adjoint", images=2)
    for key in ("mse_rel", "accuracy_predicted", "energy_j", "latency_s", "area_m2", "power_w"):
        assert key in report.to_json_dict()
    assert report.error.mse == predict(plan, samples[64:96], seed=1, method="adjoint").mse
    assert {row["stage"] for row in report.to_dicts()} == {"conv1", "conv2", "fc1", "fc2"}
    report.plot()
    pyplot.close("all")
    assert "energy" in str(report)
