"""PipeCNN's published times: two constants fitted on one log, and what they say of every other published point.

Fitted, on the DE1-SoC's log of AlexNet (batch 1): `stall`, the mean over its five convolutions of measured time over cycles, and the DDR
rate, the mean over its three fully connected layers of weight bytes over time, each with a t-interval. Everything else is predicted.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import stats

from accelsim.timing.fpga import Fpga, FpgaPipeline, layer_works, simulate_fpga
from validation.networks import data_folder
from workloads.kernels import ConvGeometry
from workloads.network import INPUT, Network, Node
from workloads.operators.matrix import Conv

ALEXNET = (
    (96, 11, 4, 0, 227, 3, 1), (256, 5, 1, 2, 27, 96, 2),
    (384, 3, 1, 1, 13, 256, 1), (384, 3, 1, 1, 13, 384, 2), (256, 3, 1, 1, 13, 384, 2),
)  # fmt: skip
"""Outputs, kernel, stride, padding, input size, input channels, groups of its convolutions: as PipeCNN runs it, on 227 x 227."""
ALEXNET_CONNECTED = ((9216, 4096), (4096, 4096), (4096, 1024))
"""Inputs and outputs; PipeCNN rounds the last one's 1,000 up to 1,024."""
VGG16 = tuple(
    (out, 3, 1, 1, size, into, 1)
    for size, pairs in (
        (224, ((3, 64), (64, 64))), (112, ((64, 128), (128, 128))), (56, ((128, 256), (256, 256), (256, 256))),
        (28, ((256, 512), (512, 512), (512, 512))), (14, ((512, 512), (512, 512), (512, 512))),
    )
    for into, out in pairs
)  # fmt: skip
VGG16_CONNECTED = ((25088, 4096), (4096, 4096), (4096, 1024))
COLUMNS = ("platform", "vec_size", "lanes", "clock_mhz", "network", "what", "measured_ms", "predicted_ms", "error_rel", "kind", "note")


def network_of(name: str, convolutions: tuple[tuple[int, ...], ...], connected: tuple[tuple[int, int], ...]) -> Network:
    """Return a chain of layers whose weights are never looked at, for times only."""
    nodes = []
    for i, (out, kernel, stride, pad, size, into, groups) in enumerate(convolutions):
        square, around = (into, size, size), (pad, pad, pad, pad)
        geometry = ConvGeometry(in_shape=square, n_out=out, kernel=(kernel, kernel), stride=(stride, stride), pads=around, groups=groups)
        operator = Conv(np.broadcast_to(np.float32(0.01), (out, into // groups, kernel, kernel)), None, geometry)
        nodes.append(Node(name=f"conv{i + 1}", operator=operator, inputs=(i - 1 if i else INPUT,), shape=geometry.out_shape))
    for k, (into, out) in enumerate(connected):
        geometry = ConvGeometry(in_shape=(into, 1, 1), n_out=out)
        weights = np.broadcast_to(np.float32(0.01), (out, into, 1, 1))
        i = len(nodes)
        nodes.append(Node(name=f"fc{k + 6}", operator=Conv(weights, None, geometry, 0), inputs=(i - 1 if i else INPUT,), shape=(out,)))
    shape = (convolutions[0][5], convolutions[0][4], convolutions[0][4]) if convolutions else (connected[0][0],)
    return Network(name=name, digest=name, input_shape=shape, nodes=tuple(nodes), output=len(nodes) - 1)


def alexnet() -> Network:
    """Return AlexNet as PipeCNN runs it."""
    return network_of("alexnet", ALEXNET, ALEXNET_CONNECTED)


def vgg16() -> Network:
    """Return VGG-16."""
    return network_of("vgg16", VGG16, VGG16_CONNECTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """A fitted constant with its 95 % interval, and what single layers say."""

    value: float
    low: float
    high: float
    of_layers: tuple[float, ...]


def _mean(values: list[float]) -> Constant:
    every = np.asarray(values)
    half = float(stats.t.ppf(0.975, len(every) - 1) * every.std(ddof=1) / math.sqrt(len(every)))
    return Constant(value=float(every.mean()), low=float(every.mean() - half), high=float(every.mean() + half), of_layers=tuple(values))


def log_of(folder: Path, board: str, source: str) -> dict[str, float]:
    """Return the measured times of a log's layers, seconds."""
    with (folder / "layer_profiles.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["board"] == board and source in row["source"]]
    return {row["layer"].removesuffix("_1024"): float(row["conv_ms"]) * 1e-3 for row in rows}


def fitted(fpga: Fpga, measured: dict[str, float]) -> tuple[Constant, Constant]:
    """Return stall and DDR rate (bytes a second) that a log of AlexNet says."""
    works = {work.name: work for work in layer_works(alexnet(), fpga)}
    stalls = [t / (works[n].total_cycles / fpga.clock_hz) for n, t in measured.items() if not works[n].is_connected]
    rates = [works[n].n_weights * fpga.value_bytes / t for n, t in measured.items() if works[n].is_connected]
    return _mean(stalls), _mean(rates)


Row = dict[str, str | float]


def _row(fpga: Fpga, platform: str, network: str, what: str, measured_s: float, predicted_s: float, kind: str, note: str = "") -> Row:
    return {
        "platform": platform, "vec_size": fpga.vec_size, "lanes": fpga.lanes, "clock_mhz": fpga.clock_hz / 1e6, "network": network,
        "what": what, "measured_ms": measured_s * 1e3, "predicted_ms": predicted_s * 1e3,
        "error_rel": predicted_s / measured_s - 1.0, "kind": kind,
        "note": note,
    }  # fmt: skip


def pipecnn_table() -> Iterator[Row]:
    """Yield every published point that states its configuration, measured and predicted."""
    folder = data_folder() / "data" / "pipecnn_measured"
    preset = FpgaPipeline.from_toml("pipecnn_de1")
    log = log_of(folder, "DE1-SoC", "PipeCNN:documents/README.md")
    stall, rate = fitted(preset.fpga, log)
    fpga = replace(preset.fpga, stall=stall.value, ddr_bytes_hz=rate.value)
    for name, constant, scale in (("stall", stall, 1.0), ("ddr_gb_per_s", rate, 1e9)):
        layers = ", ".join(f"{value / scale:.4g}" for value in constant.of_layers)
        note = f"95 %: {constant.low / scale:.4g} to {constant.high / scale:.4g}; layers: {layers}"
        row = _row(fpga, "DE1-SoC", "alexnet", name, 1.0, 1.0, "fitted", note)
        yield row | {"measured_ms": "", "error_rel": "", "predicted_ms": constant.value / scale}
    yield from _layers(fpga, preset, log, "DE1-SoC, its own log", "in sample")
    other_log = log_of(folder, "DE1-SoC", "issue 164")
    yield from _layers(fpga, preset, other_log, "DE1-SoC, another build (issue 164)", "predicted", "clock not stated: taken as 122.53 MHz")
    for platform, changes, measured, network, note in (
        ("DE1-SoC (issue 37)", {}, 0.149, alexnet(), ""),
        ("DE1-SoC (FPT 2017)", {"clock_hz": 122e6}, 0.140, alexnet(), "configuration not stated: taken as 8 x 8"),
        ("DE1-SoC (FPT 2017)", {"clock_hz": 122e6}, 1.928, vgg16(), "configuration not stated; below 8 x 8's least time: another"),
        ("DE1-SoC (issue 95)", {"vec_size": 4, "lanes": 4, "clock_hz": 139.56e6}, 0.351607, alexnet(), "built with profiling"),
        ("DE5-net (FPT 2017)", _DE5, 0.015, alexnet(), "DDR: DE1's share of the peak; fully connected layers batched 16"),
        ("DE5-net (FPT 2017)", _DE5, 0.254, vgg16(), "DDR: DE1's share of the peak; fully connected layers one by one"),
        ("Arria 10 (issue 103)", _ARRIA, 0.022, alexnet(), "a user's rounded figures; DDR as above"),
        ("Arria 10 (issue 103)", _ARRIA, 0.300, vgg16(), "a user's rounded figures; DDR as above"),
    ):  # fmt: skip
        faster = {"ddr_bytes_hz": rate.value / DE1_PEAK * DE5_PEAK} if changes in (_DE5, _ARRIA) else {}
        other = replace(fpga, **faster, **changes)  # type: ignore[arg-type]
        batch = 16 if "batched 16" in note else 1
        predicted = _batched(network, other, preset, batch)
        yield _row(other, platform, network.name, "whole", measured, predicted, "predicted", note)


DE1_PEAK, DE5_PEAK = 3.2e9, 12.8e9
"""Bytes a second of DDR3: 800 MT/s on 32 bits (Terasic, DE1-SoC user manual), 1600 MT/s on 64 bits (one channel, DE5-net user manual)."""
_DE5 = {"vec_size": 16, "lanes": 28, "clock_hz": 198e6}
_ARRIA = {"vec_size": 16, "lanes": 32, "clock_hz": 230e6}


def _batched(network: Network, fpga: Fpga, preset: FpgaPipeline, batch: int) -> float:
    """Return the time of one image; with a batch, weights of fully connected layers are read once for all of it."""
    works = layer_works(network, fpga)
    connected = sum(w.n_weights for w in works if w.is_connected)
    if batch == 1:
        return simulate_fpga(network, replace(preset, fpga=fpga), engine="recurrence").latency_s
    convolved = sum(w.total_cycles for w in works if not w.is_connected) * fpga.stall / fpga.clock_hz
    multiplied = sum(w.total_cycles for w in works if w.is_connected) * fpga.stall / fpga.clock_hz
    return convolved + max(multiplied, connected * fpga.value_bytes / fpga.ddr_bytes_hz / batch)


def _layers(fpga: Fpga, preset: FpgaPipeline, log: dict[str, float], platform: str, kind: str, note: str = "") -> Iterator[Row]:
    report = simulate_fpga(alexnet(), replace(preset, fpga=fpga), engine="recurrence")
    taken = {name: max(row.work_s for row in report.stages if row.layer == name) for name in log}
    for name, measured in log.items():
        yield _row(fpga, platform, "alexnet", name, measured, taken[name], kind, note)
    if len(log) == len(ALEXNET) + len(ALEXNET_CONNECTED):
        yield _row(fpga, platform, "alexnet", "whole", sum(log.values()), report.latency_s, kind, note)
