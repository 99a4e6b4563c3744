"""A pipeline of kernels on an FPGA, as PipeCNN and CNN2Gate build it: read from DDR, multiply, pool, write to DDR, layer after layer.

A layer's outputs are made in groups: `group_pixels` neighbours of a row for `lanes` channels at once, from vectors of `vec_size` inputs:

    cycles of a group = group_pixels K_h K_w ceil(C / vec_size),     groups = H ceil(W / group_pixels) ceil(M / lanes)          (1)

A row that is no multiple of a group is made in one group more, so that maps of 13 pixels waste a fourteenth. What is left between (1) and
what boards measure is one factor, `stall`. Fully connected layers are limited by their weights' way from DDR. Multipliers of a grouped
convolution see the channels of their group only. Reading, multiplying and writing are stages joined by channels; DDR is shared.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from accelsim.chip import Tag
from accelsim.report.origin import Provenance
from accelsim.report.time_report import StageTime, TimeReport
from accelsim.timing.bound import bound
from accelsim.timing.critical import critical
from accelsim.timing.des import simulate_events
from accelsim.timing.graph import PS, Edge, Stage, TokenGraph, picoseconds
from accelsim.timing.grid import Ints
from accelsim.timing.occupancy import peaks, shares
from accelsim.timing.recurrence import Times, recurrence
from accelsim.timing.simulate import MAX_BARS, bars_of
from devices import catalog
from devices.base.errors import NetworkError, SpecError
from devices.base.toml_codec import Faults, about, check_types, decode, parse_toml, raise_faults, read_text, write_lines
from workloads.network import Network
from workloads.operators.matrix import Conv

CHANNEL_DEPTH = 2
"""Groups that wait between two kernels: the window and the weight buffers are double."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fpga:
    """The pipeline's size and speed."""

    vec_size: int = field(metadata=about("Inputs that a lane multiplies in a cycle.", at_least=1))
    lanes: int = field(metadata=about("Output channels made at once.", at_least=1))
    group_pixels: int = field(metadata=about("Neighbouring outputs of a row made from one window.", at_least=1))
    clock_hz: float = field(metadata=about("Cycles a second.", above=0.0))
    stall: float = field(metadata=about("Time of a group over that of its cycles.", at_least=1.0))
    ddr_bytes_hz: float = field(metadata=about("Bytes a second that DDR gives and takes.", above=0.0))
    value_bytes: int = field(default=1, metadata=about("Bytes of a weight or an activation.", at_least=1))
    power_w: float | None = field(default=None, metadata=about("Power of the board.", above=0.0, absent="energy is not known"))
    tag: Tag = field(metadata=about("How these numbers are known."))
    source: str = field(metadata=about("Who says so."))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class FpgaPipeline:
    """A spec of an FPGA pipeline."""

    schema: int = field(default=1, metadata=about("Version of this format."))
    name: str = field(metadata=about("Name of this pipeline."))
    fpga: Fpga = field(metadata=about("The pipeline."))

    @classmethod
    def from_toml(cls, source: str | Path) -> Self:
        """Return the pipeline of a preset or a spec file; SpecError with every fault."""
        if is_preset(str(source)):
            return cls.from_text(catalog.text(str(source), folder=catalog.FPGA), origin=str(source))
        return cls.from_text(read_text(Path(source)), origin=str(source))

    @classmethod
    def from_text(cls, text: str, *, origin: str = "spec") -> Self:
        """Return the pipeline of a spec in TOML."""
        faults = Faults(origin)
        record = decode(cls, parse_toml(text, origin=origin), faults=faults)
        faults.raise_if_any()
        assert record is not None
        return record

    def to_toml(self) -> str:
        """Return the complete spec."""
        return "\n".join(write_lines(self)).lstrip("\n") + "\n"


def is_preset(name: str) -> bool:
    """Return whether an FPGA preset has this name."""
    return name in catalog.names(catalog.FPGA)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWork:
    """What one layer asks of the pipeline."""

    name: str
    is_connected: bool
    groups: int
    cycles: int
    n_weights: int
    read_bytes: int
    written_bytes: int

    @property
    def total_cycles(self) -> int:
        """Cycles of (1), all groups."""
        return self.groups * self.cycles


def layer_works(network: Network, fpga: Fpga) -> tuple[LayerWork, ...]:
    """Return the layers of a network in their order; NetworkError for layers that such pipelines do not have."""
    works = []
    for _, node in network.matrix_layers():
        operator = node.operator
        if not isinstance(operator, Conv):
            raise NetworkError(f"layer {node.name!r} is a {operator.kind}; the pipeline has convolutions and fully connected layers only")
        g = operator.geometry
        channels = g.in_shape[0] // g.groups
        _, height, width = g.out_shape
        vectors = -(-channels // fpga.vec_size)
        if operator.spatial == 0:  # one pixel: a group is one output of each lane
            works.append(_work(node.name, operator, fpga, True, -(-g.n_out // fpga.lanes), vectors, channels, fpga.lanes))
            continue
        groups = height * -(-width // fpga.group_pixels) * -(-g.n_out // fpga.lanes)
        cycles = fpga.group_pixels * g.kernel[0] * g.kernel[1] * vectors
        window = ((fpga.group_pixels - 1) * g.stride[1] + g.kernel[1]) * g.kernel[0] * channels
        works.append(_work(node.name, operator, fpga, False, groups, cycles, window, fpga.lanes * min(fpga.group_pixels, width)))
    return tuple(works)


def _work(
    name: str, operator: Conv, fpga: Fpga, is_connected: bool, groups: int, cycles: int, window: int, written: int
) -> LayerWork:
    weights = int(operator.weights.size)
    return LayerWork(
        name=name, is_connected=is_connected, groups=groups, cycles=cycles, n_weights=weights,
        read_bytes=window * fpga.value_bytes, written_bytes=written * fpga.value_bytes,
    )  # fmt: skip


def fpga_graph(network: Network, fpga: Fpga) -> TokenGraph:
    """Return the pipeline's stages: for each layer a read, a multiplication and a write, one layer after the other."""
    stages: list[Stage] = []
    for work in layer_works(network, fpga):
        n = work.groups
        count = np.arange(1, n + 1, dtype=np.int64)
        follows: tuple[Edge, ...] = ()
        if stages:
            every = np.full(n, stages[-1].n_tokens, np.int64)
            given = np.zeros(n, np.int64)
            given[-1] = stages[-1].n_tokens
            follows = (Edge(source=len(stages) - 1, need=every, release=given),)
        weights = np.diff(np.arange(n + 1, dtype=np.int64) * (work.n_weights * fpga.value_bytes) // n)
        reading = _ddr(weights + work.read_bytes * (not work.is_connected), fpga)
        multiplying = np.full(n, picoseconds(work.cycles * fpga.stall / fpga.clock_hz), np.int64)
        writing = _ddr(np.full(n, work.written_bytes, np.int64), fpga)
        chained = tuple(Edge(source=len(stages) + k, need=count, release=count) for k in (0, 1))
        stages += [
            Stage(
                name=f"read {work.name}", layer=work.name, service_ps=reading, inputs=follows, room=CHANNEL_DEPTH, holds=("ddr",),
                hold_ps=reading,
            ),
            Stage(name=work.name, layer=work.name, service_ps=multiplying, inputs=(chained[0],), room=CHANNEL_DEPTH),
            Stage(name=f"write {work.name}", layer=work.name, service_ps=writing, inputs=(chained[1],), holds=("ddr",), hold_ps=writing),
        ]  # fmt: skip
    return TokenGraph(stages=tuple(stages), resources={"ddr": 1})


def _ddr(n_bytes: Ints, fpga: Fpga) -> Ints:
    return np.rint(n_bytes / fpga.ddr_bytes_hz / PS).astype(np.int64)


def simulate_fpga(network: Network, pipeline: FpgaPipeline, *, engine: str = "des", images: int = 1, seed: int = 0) -> TimeReport:
    """Return the time and, where the board's power is known, the energy of a network on a pipeline; images follow one another."""
    if engine not in ("bound", "recurrence", "des"):
        raise SpecError(f"engine: {engine!r}: need bound | recurrence | des")
    started, fpga = time.perf_counter(), pipeline.fpga
    works = layer_works(network, fpga)
    if not works:
        raise SpecError(f"{network.name} has no layer with weights; there is nothing for the pipeline's multipliers to do")
    graph = fpga_graph(network, fpga)
    lower = bound(graph)
    entry = np.zeros(1, np.int64)
    run = simulate_events(graph, entry) if engine == "des" else None
    times = run.times if run is not None else recurrence(graph, entry) if engine == "recurrence" else None
    latency = float(lower.latency_ps) if times is None else float(times.makespan_ps)
    energy = 0.0 if fpga.power_w is None else fpga.power_w * latency * PS
    part = None if times is None else shares(times)
    full = None if times is None else peaks(times)
    path = critical(times) if times is not None and times.order is not None else None
    by_layer = {stage.layer: 0.0 for stage in graph.stages}
    for stage in graph.stages:
        by_layer[stage.layer] = max(by_layer[stage.layer], stage.work_ps)
    share = {name: energy * work / sum(by_layer.values()) for name, work in by_layer.items() if energy}
    operations = {node.name: 2 * node.operator.n_macs for _, node in network.matrix_layers()}  # type: ignore[attr-defined]
    moved = {work.name: 8 * (work.n_weights * fpga.value_bytes + work.groups * (work.read_bytes + work.written_bytes)) for work in works}
    multiplied = sum(stage.work_ps for stage in graph.stages if stage.name == stage.layer)
    stages = tuple(
        StageTime(
            stage=stage.name, layer=stage.layer, copies=1, arrays=0, tokens=stage.n_tokens, work_s=stage.work_ps * PS, fill_s=0.0,
            busy=stage.work_ps / latency if part is None else part[i].busy_ps / latency,
            blocked=None if part is None else part[i].blocked_ps / latency, starved=None if part is None else part[i].starved_ps / latency,
            room_tokens=stage.room, peak_tokens=None if full is None else full[i],
            operations=operations.get(stage.name, 0), moved_bits=moved.get(stage.name, 0),
            slack_s=None if path is None else path.slack_ps[i] * PS, critical_s=None if path is None else path.share_ps[stage.name] * PS,
        )
        for i, stage in enumerate(graph.stages)
    )  # fmt: skip
    return TimeReport(
        provenance=_provenance(network, pipeline, seed), engine=engine, images=images, latency_s=latency * PS,
        latency_quantiles=dict.fromkeys(("p0", "p50", "p90", "p99", "p100"), latency * PS), ii_s=latency * PS,
        throughput_per_s=1.0 / (latency * PS), makespan_s=images * latency * PS, energy_j=energy,
        energy_by_component={"board": energy} if energy else {}, energy_by_layer=share,
        energy_by_cause={"compute": energy} if energy else {}, energy_of_layers={name: {"board": value} for name, value in share.items()},
        power_w=fpga.power_w or 0.0, peak_power_w=fpga.power_w or 0.0, area_m2=0.0, area_by_component={}, utilization=multiplied / latency,
        bottleneck=lower.bottleneck, n_arrays=0, n_tiles=0, n_chips=1, n_rounds=1, lifetime_images=None, token=1, n_tokens=graph.n_tokens,
        n_events=0 if run is None else run.n_events, waited_s={} if run is None else {k: v * PS for k, v in run.waited_ps.items() if v},
        stages=stages, operations=sum(operations.values()), peak_ops_hz=2.0 * fpga.vec_size * fpga.lanes * fpga.clock_hz,
        bus_bits_hz=8.0 * fpga.ddr_bytes_hz,
        trace_edges_s=np.array([0.0, images * latency * PS]) if energy else None,
        trace_power_w=np.array([energy / (latency * PS)]) if energy else None,
        bars=None if times is None else _bars_of(times, images), elapsed_s=time.perf_counter() - started,
    )  # fmt: skip


def _bars_of(times: Times, images: int) -> np.ndarray:
    """Return the bars of one image, one after the other for as many as there is room for."""
    n = max(1, min(images, MAX_BARS // (2 * len(times.graph.stages))))
    one = bars_of(times, most=MAX_BARS // n)
    return np.concatenate([one + np.array([0.0, k, k]) * times.makespan_ps * PS for k in range(n)])


def _provenance(network: Network, pipeline: FpgaPipeline, seed: int) -> Provenance:
    import hashlib

    toml = pipeline.to_toml()
    return Provenance(
        seed=seed, network=network.name, network_digest=network.digest, spec_digest=hashlib.sha256(toml.encode()).hexdigest(),
        spec_toml=toml, samples_digest="", output=network.nodes[network.output].name, reference="",
        warnings=("layers run one after the other, and images too",),
    )  # fmt: skip


def layer_times_s(report: TimeReport) -> dict[str, float]:
    """Return how long each layer takes: the largest of its kernels' work."""
    found: dict[str, Any] = {}
    for row in report.stages:
        found[row.layer] = max(found.get(row.layer, 0.0), row.work_s)
    return found
