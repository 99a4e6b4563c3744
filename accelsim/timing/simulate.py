"""The question of time: how long, how often, with what energy; one plan, three engines."""

import time
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np

from accelsim.chip import Chip, rollup
from accelsim.placement import Plan
from accelsim.report.origin import Provenance
from accelsim.report.time_report import StageTime, TimeReport
from accelsim.timing.area import chip_area
from accelsim.timing.bound import Bound, bound
from accelsim.timing.building import MappedStep
from accelsim.timing.copies import Copies
from accelsim.timing.critical import Critical, critical
from accelsim.timing.des import Service, simulate_events
from accelsim.timing.digital import limit_of
from accelsim.timing.energy import Ledger, image_ledger, leakage
from accelsim.timing.graph import PS, TokenGraph
from accelsim.timing.grid import Ints
from accelsim.timing.mapping import Rooms, TimedPlan, map_in_time
from accelsim.timing.occupancy import peaks, shares
from accelsim.timing.power import power_trace
from accelsim.timing.recurrence import Times, recurrence
from accelsim.timing.utilization import multipliers_work, n_units, peak_ops_hz, utilization
from accelsim.values_in_memory import accesses_of, unpriced
from devices.base.errors import SpecError
from devices.base.quantity import format_quantity
from workloads.samples import Samples

Engine = Literal["bound", "recurrence", "des"]
Arrivals: TypeAlias = str | Sequence[float]
MAX_EVENTS = 1_000_000
MAX_BARS = 2000
MAX_IMAGES = 100_000
_QUANTILES = {"p0": 0.0, "p50": 0.5, "p90": 0.9, "p99": 0.99, "p100": 1.0}


def simulate(
    plan: Plan,
    *,
    engine: Engine = "recurrence",
    images: int = 8,
    arrivals: Arrivals = "saturated",
    copies: Copies = "given",
    token: int = 1,
    rooms: Rooms = "sized",
    service: Service = "deterministic",
    samples: Samples | None = None,
    seed: int = 0,
) -> TimeReport:
    """Return the time and energy of a plan.

    Parameters
    ----------
    engine
        `bound`: closed forms that no run beats. `recurrence`: every token's time, exact where nothing is shared. `des`: discrete events
        (SimPy), with contention for what is shared.
    arrivals
        `saturated`: the next image is always there. `poisson:RATE` (images a second), or the times themselves, seconds.
    copies
        Of each layer: `given` by mapping.replicas, `balanced` over pixels, within the tiles there are (`budget`), or by name.
    token
        Least width of a token, pixels. Wider tokens are faster to simulate; latency is an upper bound then.
    rooms
        Buffers: `sized` so that nothing deadlocks, `unbounded`, or a number of rows.
    service
        `exponential` makes services random with the mean they have (`des` only).
    samples
        Where given, the energy of the cells follows from their conductances and these inputs.

    Raises SpecError where the spec has no [chip] or misses a time, InfeasibleError where weights do not fit, DeadlockError, with the
    circle of waits, where buffers are too small.
    """
    started = time.perf_counter()
    _check(engine, images, token, service)
    timed = map_in_time(plan, copies=copies, token=token, rooms=rooms)
    notes: list[str] = []
    if engine == "des":
        timed, notes = _affordable(timed, images, copies=copies, token=token, rooms=rooms)
    timed.graph.check_span(images)
    entry = _arrivals(arrivals, images, seed)
    lower = bound(timed.graph)
    times: Times | None = None
    n_events, waited = 0, dict[str, int]()
    if engine == "recurrence":
        times = recurrence(timed.graph, entry)
        if timed.contended:
            shared = ", ".join(timed.contended[:3]) + (", ..." if len(timed.contended) > 3 else "")
            notes.append(f"nothing is contended for in the recurrence, though there is what stages share ({shared}): engine des has it")
    elif engine == "des":
        run = simulate_events(timed.graph, entry, service=service, seed=seed)
        times, n_events, waited = run.times, run.n_events, run.waited_ps
    makespan = lower.makespan_ps(timed.graph, images) if times is None else _at_least_shared(times, timed.graph, images)
    image = image_ledger(timed, samples=samples)
    if samples is not None:
        notes.extend(_cells_told_twice(timed, image))
    leaked = leakage(timed, times, makespan, images)
    saturated = isinstance(arrivals, str) and arrivals == "saturated"
    return _report(
        plan, timed, lower, times, image, leaked, engine=engine, images=images, makespan_ps=makespan, saturated=saturated,
        n_events=n_events, waited=waited, notes=notes, samples=samples, seed=seed, started=started, service=service,
    )  # fmt: skip


def times_of(
    plan: Plan, *, engine: Engine = "recurrence", images: int = 8, arrivals: Arrivals = "saturated", copies: Copies = "given",
    token: int = 1, rooms: Rooms = "sized", service: Service = "deterministic", seed: int = 0,
) -> Times:  # fmt: skip
    """Return every token's times, as `simulate` with the same arguments has them; raise SpecError for the bound, which has none."""
    _check(engine, images, token, service)
    timed = map_in_time(plan, copies=copies, token=token, rooms=rooms)
    timed.graph.check_span(images)
    if engine == "bound":
        raise SpecError('the bound knows no times of tokens; take engine="recurrence" or "des"')
    if engine == "recurrence":
        return recurrence(timed.graph, _arrivals(arrivals, images, seed))
    timed, _ = _affordable(timed, images, copies=copies, token=token, rooms=rooms)
    return simulate_events(timed.graph, _arrivals(arrivals, images, seed), service=service, seed=seed).times


def _check(engine: str, images: int, token: int, service: str) -> None:
    if engine not in get_args(Engine):
        raise SpecError(f"engine: {engine!r}: need {' | '.join(get_args(Engine))}")
    if not 1 <= images <= MAX_IMAGES:
        raise SpecError(f"images: {images}: need 1 to {MAX_IMAGES}")
    if token < 1:
        raise SpecError(f"token: {token}: need a width of at least 1 pixel")
    if service != "deterministic" and engine != "des":
        raise SpecError(f'service: {service!r}: random services need engine="des"')


def _at_least_shared(times: Times, graph: TokenGraph, images: int) -> float:
    """Return the makespan, at least what the shared things have to do."""
    return max(float(times.makespan_ps), images * max(graph.shared_work_ps().values(), default=0.0))


def _affordable(timed: TimedPlan, images: int, *, copies: Copies, token: int, rooms: Rooms) -> tuple[TimedPlan, list[str]]:
    """Return the plan with tokens so wide that a run stays within MAX_EVENTS, and what was done about it."""
    width, before = token, expected_events(timed.graph, images)
    while expected_events(timed.graph, images) > MAX_EVENTS and width < 4096:
        width *= 2
        timed = map_in_time(timed.plan, copies=copies, token=width, rooms=rooms)
    if width == token:
        return timed, []
    now = expected_events(timed.graph, images)
    say = f"tokens are at least {width} pixels wide: {before:,} events would be too many, now at most {now:,}; latency is an upper bound"
    return timed, [say]


def expected_events(graph: TokenGraph, images: int) -> int:
    """Return the most events a run takes: serve, wait for data or room, and ask for each shared thing."""
    return images * sum(stage.n_tokens * (2 + 2 * len(stage.holds)) for stage in graph.stages)


LATEST_S = 1e6
"""Picoseconds are counted in 63 bits, which end at 9e6 s."""


def _arrivals(arrivals: Arrivals, images: int, seed: int) -> Ints:
    if isinstance(arrivals, str):
        kind, _, rest = arrivals.partition(":")
        if kind == "saturated" and not rest:
            return np.zeros(images, np.int64)
        try:
            rate = float(rest) if kind == "poisson" else 0.0
        except ValueError:
            rate = 0.0
        if not 0.0 < rate < 1e12:
            raise SpecError(f"arrivals: {arrivals!r}: need saturated, poisson:RATE (images a second: poisson:1000), or times in seconds")
        gaps = np.random.default_rng(np.random.SeedSequence([seed, 1])).exponential(1.0 / rate, images)
        return np.rint(np.cumsum(gaps) / PS).astype(np.int64)
    listed = np.asarray(arrivals, dtype=float)
    sound = listed.shape == (images,) and bool(np.all(np.abs(listed) <= LATEST_S)) and not np.any(np.diff(listed, prepend=0.0) < 0.0)
    if not sound:
        raise SpecError(
            f"arrivals: need {images} times in seconds from 0 to {LATEST_S:g}, none before the one ahead of it; got {listed.size} of them"
        )
    return np.rint(listed / PS).astype(np.int64)


def _interval_ps(times: Times, lower: Bound, *, service: Service) -> float:
    """Return the interval between results in the second half of a run, at least the bound's; of one image, the bound's."""
    n, done = times.n_images, np.sort(times.done_ps)
    least = lower.interval_ps if service == "deterministic" else 0.0  # random services may have been short
    if n == 1:
        return lower.interval_ps
    half = n // 2
    return max(float(done[-1] - done[half - 1]) / (n - half), least)


def _report(
    plan: Plan, timed: TimedPlan, lower: Bound, times: Times | None, image: Ledger, leaked: Ledger, *, engine: Engine, images: int,
    makespan_ps: float, saturated: bool, n_events: int, waited: dict[str, int], notes: list[str], samples: Samples | None, seed: int,
    started: float, service: Service,
) -> TimeReport:  # fmt: skip
    whole = image.times(images).plus(leaked)
    interval = lower.interval_ps if times is None else _interval_ps(times, lower, service=service)
    interval = interval if saturated else makespan_ps / images
    latencies = np.array([float(lower.latency_ps)]) if times is None else _latencies(timed, times, saturated=saturated)
    n_tiles = timed.n_tiles if timed.chip.n_tiles is None else timed.chip.n_tiles * timed.n_chips
    sums, areas = rollup(timed.chip, n_tiles, timed.n_engines), chip_area(timed)
    if times is not None and images == 1 and saturated:
        notes.append("of one image only: the interval is the bound's; images=8 or more measure it")
    trace = None if times is None else power_trace(times, image, leaked)
    path = critical(times) if times is not None and times.order is not None and engine == "recurrence" else None
    busiest = lower.bottleneck
    return TimeReport(
        provenance=_provenance(plan, samples, seed, (*timed.notes, *notes, *_remembered(timed), *_unpriced(plan))),
        engine=engine,
        images=images,
        latency_s=float(latencies.mean()) * PS,
        latency_quantiles=_quantiles(latencies),
        ii_s=interval * PS,
        throughput_per_s=1.0 / (interval * PS) if interval else float("inf"),
        makespan_s=makespan_ps * PS,
        energy_j=whole.total_j / images,
        energy_by_component=_over(whole.by("component"), images),
        energy_by_layer=_over(whole.by("layer"), images),
        energy_by_cause=_over(whole.by("cause"), images),
        energy_of_layers={layer: _over(parts, images) for layer, parts in whole.of_layers().items()},
        power_w=whole.total_j / (makespan_ps * PS) if makespan_ps else 0.0,
        peak_power_w=sum(sums.power_w.values()),
        area_m2=sum(areas.values()),
        area_by_component=areas,
        utilization=utilization(timed, interval),
        bottleneck=busiest,
        n_arrays=timed.n_arrays,
        n_tiles=timed.n_tiles,
        n_chips=timed.n_chips,
        n_rounds=timed.n_rounds,
        lifetime_images=_lifetime(timed),
        token=timed.token,
        n_tokens=timed.graph.n_tokens,
        n_events=n_events,
        waited_s={name: ps * PS for name, ps in waited.items() if ps},
        stages=_stages(timed, times, path, makespan_ps, images),
        operations=2 * sum(layer.operator.n_macs for layer in plan.layers),
        peak_ops_hz=peak_ops_hz(timed),
        n_multipliers=n_units(timed),
        multipliers_work=multipliers_work(timed, interval),
        bus_bits_hz=_bus_bits_hz(timed),
        trace_edges_s=None if trace is None else trace.edges_s,
        trace_power_w=None if trace is None else trace.power_w,
        bars=None if times is None else bars_of(times),
        elapsed_s=time.perf_counter() - started,
    )


def _provenance(plan: Plan, samples: Samples | None, seed: int, notes: tuple[str, ...]) -> Provenance:
    return Provenance(
        seed=seed,
        network=plan.network.name,
        network_digest=plan.network.digest,
        spec_digest=plan.accelerator.digest,
        spec_toml=plan.accelerator.to_toml(),
        samples_digest="" if samples is None else samples.digest,
        output=plan.graph.nodes[plan.graph.output].name,
        reference="",
        warnings=notes,
    )


def _cells_told_twice(timed: TimedPlan, image: Ledger) -> list[str]:
    """Return what the chip's table says of its cells' energy, where conductances and inputs say something else."""
    cells = [part.name for part in timed.chip.parts if part.cells and part.energy_j > 0.0]
    by_table, by_data = image_ledger(timed).by("component"), image.by("component").get("memristors", 0.0)
    told = sum(by_table.get(name, 0.0) for name in cells)
    if not told:
        return []
    data, table = (format_quantity(energy, "joule", n_digits=3) for energy in (by_data, told))
    return [f"the cells take {data} an image by their conductances and these inputs; by chip.parts.{', '.join(cells)} it would be {table}"]


def _unpriced(plan: Plan) -> tuple[str, ...]:
    return unpriced([layer for layer in plan.layers if layer.is_digital])


def _remembered(timed: TimedPlan) -> tuple[str, ...]:
    names = [part.name for part in timed.chip.parts if part.tag == "remembered"]
    return (f"remembered, not read in a source: the numbers of {', '.join(names)}",) if names else ()


def _latencies(timed: TimedPlan, times: Times, *, saturated: bool) -> np.ndarray:
    """Return the time from an image's entering (saturated) or arrival to its result, picoseconds.

    An image that takes no time to come enters when a digital engine takes it, where that is all that reads it.
    """
    if not saturated:
        return times.latency_ps.astype(float)
    readers = timed.graph.readers()[0]
    names = {m.step.name for m in timed.steps if m.step.on_engine is not None}
    taken = not timed.graph.stages[0].work_ps and all(timed.graph.stages[c].name in names for c, _ in readers)
    first = np.minimum.reduce([times.start[s].reshape(times.n_images, -1)[:, 0] for s in ([c for c, _ in readers] if taken else [0])])
    return np.asarray((times.done_ps - first).astype(float))


def _quantiles(latencies: np.ndarray) -> dict[str, float]:
    return {name: float(np.quantile(latencies, q)) * PS for name, q in _QUANTILES.items()}


def _over(energies: dict[str, float], n: int) -> dict[str, float]:
    return {name: energy / n for name, energy in energies.items() if energy}


def _bus_bits_hz(timed: TimedPlan) -> float | None:
    """Return the bits a second of the buses of all tiles; None without arrays that they lead to."""
    return None if timed.chip.bus_bits is None or not timed.n_arrays else timed.chip.bus_bits * timed.chip.clock_hz * timed.n_tiles


def _lifetime(timed: TimedPlan) -> float | None:
    """Return how many images the cells live, where weights are written for each; None where they are not, or nothing is known."""
    return timed.chip.endurance if timed.n_rounds > 1 else None


def _stages(
    timed: TimedPlan, times: Times | None, path: Critical | None, makespan_ps: float, images: int
) -> tuple[StageTime, ...]:
    by_name = {m.step.name: m for m in timed.steps}
    part = None if times is None else shares(times)
    full = None if times is None else peaks(times)
    return tuple(
        StageTime(
            stage=stage.name,
            layer=stage.layer,
            copies=by_name[stage.name].copies if stage.name in by_name else 1,
            arrays=by_name[stage.name].n_arrays if stage.name in by_name else 0,
            tokens=stage.n_tokens,
            work_s=stage.work_ps * PS,
            fill_s=stage.fill_ps * PS,
            busy=stage.work_ps * images / makespan_ps if part is None else part[i].busy_ps / makespan_ps,
            blocked=None if part is None else part[i].blocked_ps / makespan_ps,
            starved=None if part is None else part[i].starved_ps / makespan_ps,
            room_tokens=stage.room,
            peak_tokens=None if full is None else full[i],
            operations=_operations(by_name.get(stage.name)),
            moved_bits=_moved(by_name.get(stage.name)),
            slack_s=None if path is None else path.slack_ps[i] * PS,
            critical_s=None if path is None else path.share_ps[stage.name] * PS,
            limit=_limit(by_name.get(stage.name), timed.chip),
        )
        for i, stage in enumerate(timed.graph.stages)
    )


def _operations(mapped: MappedStep | None) -> int:
    if mapped is None:
        return 0
    return mapped.step.operations if mapped.step.layer is None else 2 * mapped.step.layer.operator.n_macs


def _limit(mapped: MappedStep | None, chip: Chip) -> str | None:
    return None if mapped is None or mapped.step.on_engine is None else limit_of(mapped.step.on_engine, chip)


def _moved(mapped: MappedStep | None) -> int:
    """Return the bits between a step and its buffer, and those of its memories where an engine does it."""
    if mapped is None:
        return 0
    words = () if mapped.step.on_engine is None else accesses_of(mapped.step.on_engine)
    of_memories = sum((access.reads + access.writes) * access.memory.stored_bits for access in words)
    return mapped.actions.get("load", 0) + mapped.actions.get("store", 0) + round(of_memories)


def bars_of(times: Times, *, most: int = MAX_BARS) -> np.ndarray:
    """Return bars of a Gantt chart: stage, start, end (seconds); tokens are merged over the smallest gaps until there are few enough."""
    spans = [(s, start[finish > start], finish[finish > start]) for s, (start, finish) in enumerate(zip(times.start, times.finish))]
    gaps = np.concatenate([start[1:] - finish[:-1] for _, start, finish in spans])
    n_kept = max(0, most - len(spans))
    least = 0 if len(gaps) <= n_kept else int(np.partition(gaps, len(gaps) - n_kept - 1)[len(gaps) - n_kept - 1])
    rows = []
    for s, start, finish in spans:
        if not len(start):
            continue
        breaks = np.flatnonzero(start[1:] - finish[:-1] > least)
        begins, ends = np.concatenate([[0], breaks + 1]), np.concatenate([breaks, [len(start) - 1]])
        rows.append(np.stack([np.full(len(begins), float(s)), start[begins] * PS, finish[ends] * PS], axis=1))
    return np.concatenate(rows) if rows else np.zeros((0, 3))
