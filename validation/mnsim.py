"""The five networks of MNSIM 2.0 on its default chip: our engines beside what it prints.

Networks: MNSIM/Interface/network.py (CIFAR-10). Results: the tool run on its default SimConfig.ini, behaviour level, without its NoC.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from accelsim.accelerator import Accelerator
from accelsim.placement import Plan, place
from accelsim.timing.graph import TokenGraph
from accelsim.timing.mapping import map_in_time
from accelsim.timing.recurrence import recurrence
from accelsim.timing.simulate import simulate
from workloads.kernels import ConvGeometry
from workloads.network import INPUT, Network, Node
from workloads.operators.base import Operator, Shape
from workloads.operators.matrix import Conv
from workloads.operators.merge import Add
from workloads.operators.pooling import MaxPool, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """What the tool prints: latency of one image in its pipeline, filled row by row (mode 0), its energy, and the area of its tiles."""

    latency_ns: float
    energy_mj: float
    area_mm2: float


PRINTED = {
    "lenet": Printed(latency_ns=341_192.5, energy_mj=0.00688, area_mm2=60.5),
    "alexnet": Printed(latency_ns=776_015.2, energy_mj=0.3653, area_mm2=462.0),
    "vgg8": Printed(latency_ns=5_150_637.6, energy_mj=4.449, area_mm2=1390.0),
    "vgg16": Printed(latency_ns=3_570_101.4, energy_mj=2.226, area_mm2=2219.0),
    "resnet18": Printed(latency_ns=2_914_086.7, energy_mj=1.058, area_mm2=2129.0),
}
COLUMNS = ("network", "quantity", "buffers", "mnsim", "ours", "ratio", "note")
_C10 = (3, 32, 32)


class _Maker:
    """A network whose weights are never looked at, for times only."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[Node] = []

    def shape(self, i: int) -> Shape:
        return _C10 if i == INPUT else self.nodes[i].shape

    def last(self) -> int:
        return len(self.nodes) - 1 if self.nodes else INPUT

    def _add(self, name: str, operator: Operator, inputs: tuple[int, ...], shape: Shape) -> int:
        self.nodes.append(Node(name=f"{name}{len(self.nodes)}", operator=operator, inputs=inputs, shape=shape))
        return len(self.nodes) - 1

    def conv(self, out: int, kernel: int, *, pad: int = 0, stride: int = 1, source: int | None = None) -> int:
        source = self.last() if source is None else source
        channels, height, width = self.shape(source)
        pads = (pad, pad, pad, pad)
        shape = (channels, height, width)
        g = ConvGeometry(in_shape=shape, n_out=out, kernel=(kernel, kernel), stride=(stride, stride), pads=pads)
        weights = np.broadcast_to(np.float32(0.01), (out, channels, kernel, kernel))
        return self._add("conv", Conv(weights, None, g), (source,), g.out_shape)

    def pool(self) -> int:
        channels, height, width = self.shape(self.last())
        window = Window(in_size=(height, width), out_size=(height // 2, width // 2), kernel=(2, 2), stride=(2, 2))
        return self._add("pool", MaxPool(window), (self.last(),), (channels, height // 2, width // 2))

    def dense(self, out: int) -> int:
        values = int(np.prod(self.shape(self.last())))
        weights = np.broadcast_to(np.float32(0.01), (out, values, 1, 1))
        return self._add("fc", Conv(weights, None, ConvGeometry(in_shape=(values, 1, 1), n_out=out), 0), (self.last(),), (out,))

    def add(self, a: int, b: int) -> int:
        return self._add("add", Add(), (a, b), self.shape(a))

    def network(self) -> Network:
        return Network(name=self.name, digest=self.name, input_shape=_C10, nodes=tuple(self.nodes), output=self.last())


def _chain(name: str, widths: tuple[int, ...], *, dense: tuple[int, ...], unpadded: int | None = None) -> Network:
    """Return 3 x 3 convolutions of these widths, 0 for a pooling, then fully connected layers."""
    maker = _Maker(name)
    for width in widths:
        if width:
            maker.conv(width, 3, pad=0 if width == unpadded else 1)
        else:
            maker.pool()
    for out in dense:
        maker.dense(out)
    return maker.network()


def lenet() -> Network:
    """Return LeNet of 5 x 5 convolutions on 32 x 32 colours."""
    maker = _Maker("lenet")
    for out in (6, 16):
        maker.conv(out, 5)
        maker.pool()
    maker.conv(120, 5)
    maker.dense(84)
    maker.dense(10)
    return maker.network()


def alexnet() -> Network:
    """Return AlexNet for CIFAR-10."""
    maker = _Maker("alexnet")
    maker.conv(64, 3, pad=1, stride=2)
    maker.pool()
    maker.conv(192, 3, pad=1)
    maker.pool()
    for out in (384, 256, 256):
        maker.conv(out, 3, pad=1)
    maker.pool()
    maker.dense(512)
    maker.dense(10)
    return maker.network()


def resnet18() -> Network:
    """Return ResNet-18 with a pooling behind its first convolution, and 3 x 3 convolutions in its shortcuts."""
    maker = _Maker("resnet18")
    maker.conv(64, 3, pad=1)
    maker.pool()
    for out, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        start = maker.last()
        maker.conv(out, 3, pad=1, stride=stride)
        main = maker.conv(out, 3, pad=1)
        short = maker.conv(out, 3, pad=1, stride=2, source=start) if stride == 2 else start
        maker.add(main, short)
    maker.dense(512)
    maker.dense(10)
    return maker.network()


def networks() -> dict[str, Network]:
    """Return the five networks by name."""
    vgg8 = _chain("vgg8", (128, 128, 0, 256, 256, 0, 512, 512, 0, 1024, 0), dense=(10,), unpadded=1024)
    deep = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
    return {"lenet": lenet(), "alexnet": alexnet(), "vgg8": vgg8, "vgg16": _chain("vgg16", deep, dense=(10,)), "resnet18": resnet18()}


def plan_of(network: Network) -> Plan:
    """Return a network on MNSIM's default chip."""
    return place(network, Accelerator.preset("mnsim_default"), calibration=None)


Row = dict[str, str | float]


def mnsim_table() -> Iterator[Row]:
    """Yield latency, energy and area beside MNSIM's with unbounded buffers, then what buffers of one, two and three rows cost."""
    for name, network in networks().items():
        plan, printed = plan_of(network), PRINTED[name]
        free = simulate(plan, engine="recurrence", images=1, rooms="unbounded")
        for quantity, theirs, ours in (
            ("latency_us", printed.latency_ns / 1e3, free.latency_s * 1e6), ("energy_mj", printed.energy_mj, free.energy_j * 1e3),
            ("area_mm2", printed.area_mm2, free.area_m2 * 1e6),
        ):  # fmt: skip
            yield _row(name, quantity, "unbounded", theirs, ours)
        for rows in (1, 2, 3):
            makespan, culprit, without = slowdown(plan, rows)
            least = free.latency_s * 1e12
            note = "" if makespan <= 1.0005 * least else f"{without / least:.3f} of unbounded if only {culprit} had room"
            yield _row(name, "latency_us", f"{rows} row{'s' if rows > 1 else ''}", printed.latency_ns / 1e3, makespan / 1e6, note)


def _row(network: str, quantity: str, buffers: str, theirs: float, ours: float, note: str = "") -> Row:
    row: Row = {"network": network, "quantity": quantity, "buffers": buffers, "mnsim": theirs, "ours": ours}
    return row | {"ratio": ours / theirs, "note": note}


def slowdown(plan: Plan, rows: int) -> tuple[int, str, int]:
    """Return the makespan of one image with buffers of so many rows, whose buffer costs most, and the makespan with that one unbounded."""
    graph = map_in_time(plan, rooms=rows).graph
    one = np.zeros(1, np.int64)

    def makespan(changed: TokenGraph) -> int:
        return recurrence(changed, one).makespan_ps

    relieved = {
        stage.name: makespan(replace(graph, stages=(*graph.stages[:i], replace(stage, room=None), *graph.stages[i + 1 :])))
        for i, stage in enumerate(graph.stages)
        if stage.room is not None
    }
    culprit = min(relieved, key=lambda name: relieved[name])
    return makespan(graph), culprit, relieved[culprit]
