"""How time and memory of the predictors grow with the network: one size at a time, the exponent of each.

The networks are stacks of 3x3 convolutions with ReLUs, an average over positions and a fully connected layer, with random He
weights; what is measured does not depend on training.
"""

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from accelsim import Accelerator, place
from accelsim.plot.style import BLUE, ORANGE, light_frame, title
from accelsim.prediction.sketched import sketch
from accelsim.response.linear import respond
from accelsim.response.target import reference_outputs
from benchmarks.clock import interleaved
from benchmarks.samplers import SEED
from validation.tables import Row
from workloads.kernels import ConvGeometry
from workloads.network import INPUT, Network, Node, digest_of
from workloads.operators.base import Operator
from workloads.operators.matrix import Conv
from workloads.operators.piecewise import Relu
from workloads.operators.reduce import ReduceMean
from workloads.samples import samples_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERROR_REL, TURNS, N_FITTED = 0.003, 2, 3
"""Programming error, rounds that count, and largest sizes that the exponent is fitted to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A network and the number of images it is asked for."""

    width: int = 16
    depth: int = 4
    resolution: int = 16
    images: int = 16
    outputs: int = 10


SERIES: dict[str, tuple[str, tuple[int, ...], Callable[[Size], int]]] = {
    "channels squared": ("width", (16, 32, 64, 128), lambda size: size.width**2),
    "layers": ("depth", (4, 8, 16, 32), lambda size: size.depth),
    "positions": ("resolution", (16, 32, 64, 128), lambda size: size.resolution**2),
    "images": ("images", (16, 32, 64, 128), lambda size: size.images),
    "outputs": ("outputs", (8, 16, 32, 64), lambda size: size.outputs),
}


def network(size: Size) -> Network:
    """Return the network of one size."""
    random = np.random.default_rng(SEED)
    steps: list[tuple[str, Operator]] = []
    for i in range(size.depth):
        geometry = ConvGeometry(
            in_shape=(size.width if i else 3, size.resolution, size.resolution), n_out=size.width, kernel=(3, 3), pads=(1, 1, 1, 1)
        )
        steps += [(f"conv{i + 1}", Conv(_weights(random, geometry), None, geometry)), (f"relu{i + 1}", Relu())]
    last = ConvGeometry(in_shape=(size.width, 1, 1), n_out=size.outputs)
    steps += [("mean", ReduceMean((1, 2), False)), ("fc", Conv(_weights(random, last), None, last, 0))]
    nodes: list[Node] = []
    for i, (name, operator) in enumerate(steps):
        shape = operator.out_shape(nodes[-1].shape if nodes else (3, size.resolution, size.resolution))
        nodes.append(Node(name=name, operator=operator, inputs=(i - 1 if i else INPUT,), shape=shape))
    in_shape = (3, size.resolution, size.resolution)
    return Network(name="stack", digest=digest_of(str(size)), input_shape=in_shape, nodes=tuple(nodes), output=len(nodes) - 1)


def _weights(random: np.random.Generator, geometry: ConvGeometry) -> np.ndarray:
    return (random.standard_normal(geometry.weight_shape) * np.sqrt(2.0 / geometry.n_rows)).astype(np.float32)


def rows() -> list[Row]:
    """Return one row a predictor and size, and the exponent of each series on its last row."""
    table: list[Row] = []
    for what, (name, values, measure) in SERIES.items():
        sizes = [replace(Size(), **{name: value}) for value in values]
        found = [_measured(size) for size in sizes]
        for method in found[0]:
            x = [measure(size) for size in sizes]
            seconds, peaks = ([one[method][i] for one in found] for i in (0, 1))
            table += [
                {
                    "method": method,
                    "size": what,
                    "value": str(value),
                    "seconds": f"{s:.4g}",
                    "peak_mib": f"{peak / 2**20:.4g}",
                    "time_exponent": "" if value != x[-1] else f"{exponent(x, seconds):.2f}",
                    "memory_exponent": "" if value != x[-1] else f"{exponent(x, peaks):.2f}",
                }
                for value, s, peak in zip(x, seconds, peaks)
            ]
    return table


def exponent(x: list[int], y: list[float]) -> float:
    """Return the slope of log y over log x at the largest sizes."""
    return float(np.polyfit(np.log(x[-N_FITTED:]), np.log(y[-N_FITTED:]), 1)[0])


def _measured(size: Size) -> dict[str, tuple[float, float]]:
    """Return CPU seconds and the peak of what is allocated, bytes, by predictor."""
    graph = network(size)
    samples = samples_of(np.random.default_rng(SEED + 1).standard_normal((size.images, *graph.input_shape)).astype(np.float32))
    plan = place(graph, Accelerator.preset("memse", set=(f"cell.error_rel={ERROR_REL:g}",)), calibration=samples)
    wanted = reference_outputs(plan, plan.graph, samples, "float")
    works: dict[str, Callable[[], object]] = {
        "adjoint": lambda: respond(plan, plan.graph, samples, seed=SEED),
        "sketched": lambda: sketch(plan, plan.graph, samples, wanted, seed=SEED),
    }
    # one method at a time: sizes are compared, and what one leaves of the caches and of free memory is not the other's cost
    return {method: (interleaved({method: work}, n=TURNS)[method], _peak_bytes(work)) for method, work in works.items()}


def _peak_bytes(work: Callable[[], object]) -> float:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return float(peak)


def draw(table: list[Row]) -> "Figure":
    """Draw time and memory over each size."""
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = pyplot.subplots(2, len(SERIES), figsize=(3.0 * len(SERIES), 5.4), layout="constrained")
    lines = (("seconds", "CPU time (s)", "time_exponent"), ("peak_mib", "memory (MiB)", "memory_exponent"))
    for column, what in enumerate(SERIES):
        for line, (key, unit, slope) in enumerate(lines):
            ax = axes[line, column]
            for method, colour in (("adjoint", BLUE), ("sketched", ORANGE)):
                chosen = [row for row in table if row["method"] == method and row["size"] == what]
                x, y = ([float(row[k]) for row in chosen] for k in ("value", key))
                ax.plot(x, y, "-o", color=colour, markersize=4, label=f"{method}, exponent {chosen[-1][slope]}")
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.set_xticks(x, [f"{value:g}" for value in x], rotation=30)
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.yaxis.set_minor_formatter(NullFormatter())
            ax.set_xlabel(what)
            ax.set_ylabel(unit if column == 0 else "")
            light_frame(ax)
            ax.legend(frameon=False, fontsize=7)
    title(axes[0, 0], "Cost over network size")
    return figure


def save(table: list[Row], path: Path) -> None:
    """Write the picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(table).savefig(path, dpi=130)
