"""A network as the steps that hardware takes: layers on arrays, poolings and merges; what acts on single values is done on the way.

Activations, reshapes and normalizations by channel belong to the step whose result they change: they cost operations, and no stage of
their own. A step reads its sources through a reach (which pixels), or needs all of them.
"""

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from accelsim.placement import PlacedLayer, Plan
from accelsim.timing.grid import Pair, Reach, Span, grid_size
from workloads.network import INPUT, Network, Node
from workloads.operators.activation import Elementwise
from workloads.operators.base import Operator, Shape
from workloads.operators.matrix import Conv, ConvTranspose
from workloads.operators.merge import Affine
from workloads.operators.normalization import LRN, LogSoftmax, Softmax
from workloads.operators.pooling import AveragePool, MaxPool
from workloads.operators.reshape import Gather, Pad, Reshape, Slice, Transpose
from workloads.operators.resize import Resize

ON_THE_WAY = (Elementwise, Affine, Softmax, LogSoftmax, LRN, Reshape, Transpose, Slice, Gather, Pad)
FREE = (Reshape, Transpose, Slice, Gather, Pad)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """One input of a step: another step (or the image, `INPUT`), and what each pixel needs of it; None: all."""

    step: int
    reach: Reach | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One piece of work of one image.

    Parameters
    ----------
    name, operator
        The node's name, and what it does.
    layer
        The placed layer; None for poolings, merges and the like.
    size, channels
        Rows and columns of its output, and values of each pixel.
    stride
        Pixels of the input from one pixel of the output to the next, along a row: what its tokens are made as wide as.
    operations
        Digital operations of one image: one a value for activations, one a tap for poolings, one an input for merges.
    """

    name: str
    operator: Operator
    layer: PlacedLayer | None
    size: Pair
    channels: int
    sources: tuple[Source, ...]
    stride: int
    operations: int

    @property
    def on_arrays(self) -> PlacedLayer | None:
        """The layer, where its weights are conductances."""
        return None if self.layer is None or self.layer.is_digital else self.layer

    @property
    def on_engine(self) -> PlacedLayer | None:
        """The layer, where its weights are words in a memory."""
        return self.layer if self.layer is not None and self.layer.is_digital else None

    @property
    def n_values(self) -> int:
        """Values of its output."""
        return self.size[0] * self.size[1] * self.channels


def steps_of(plan: Plan) -> tuple[Step, ...]:
    """Return the steps of a plan's network, sources first."""
    graph, placed = plan.graph, plan.layer_of_node()
    made_by: dict[int, Made] = {INPUT: (INPUT, _same(grid_size(graph.input_shape)))}
    steps: list[Step] = []
    for i, node in enumerate(graph.nodes):
        if isinstance(node.operator, ON_THE_WAY):
            source, seen = made_by[node.inputs[0]]
            made_by[i] = (source, _moved(node.operator, _shape(graph, node.inputs[0]), node.shape, seen))
            if source != INPUT and not isinstance(node.operator, FREE):
                steps[source] = _with_operations(steps[source], math.prod(node.shape))
            continue
        steps.append(_step(graph, node, placed.get(i), made_by))
        made_by[i] = (len(steps) - 1, _same(steps[-1].size))
    return tuple(steps)


Made: TypeAlias = tuple[int, Reach | None]
"""The step that made a value, and which of that step's pixels each pixel of the value holds; None: all of them."""


def _moved(operator: Operator, read: Shape, made: Shape, seen: Reach | None) -> Reach | None:
    """Return which pixels of a step the result of an operator on the way holds, where its input holds `seen`."""
    if seen is None:
        return None
    if isinstance(operator, (Slice, Pad)):
        rows, columns = (_span(operator, axis - 2 + len(read), read) for axis in (0, 1))
        own = Reach(rows=rows or Span.same(grid_size(made)[0]), columns=columns or Span.same(grid_size(made)[1]))
        return own.through(seen)
    return None if grid_size(read) != grid_size(made) or _mixes_pixels(operator, made) else seen


def _span(operator: Slice | Pad, axis: int, read: Shape) -> Span | None:
    """Return which places along an axis of pixels are kept; None where it is no such axis."""
    if axis < 1:
        return None
    n = int(read[axis])
    if isinstance(operator, Slice):
        kept = np.arange(n)[operator.slices[axis]]
        return Span(first=kept, last=kept)
    before, after = operator.widths[axis]
    place = np.arange(-before, n + after, dtype=np.int64)
    return Span(first=np.clip(place, 0, n - 1), last=np.where((place >= 0) & (place < n), place, -1))


def _mixes_pixels(operator: Operator, shape: Shape) -> bool:
    """Return whether an operator between maps of the same size moves values from pixel to pixel."""
    if isinstance(operator, Transpose):
        n = len(operator.order)
        return operator.order[-2:] != (n - 2, n - 1)
    return isinstance(operator, Gather) and operator.axis >= len(shape) - 2 and len(shape) > 2


def _with_operations(step: Step, n: int) -> Step:
    return replace(step, operations=step.operations + n)


def _shape(graph: Network, i: int) -> Shape:
    return graph.input_shape if i == INPUT else graph.nodes[i].shape


def _step(graph: Network, node: Node, layer: PlacedLayer | None, made_by: dict[int, Made]) -> Step:
    size = grid_size(node.shape)
    sources = []
    for j in node.inputs:
        source, seen = made_by[j]
        reach = _reach(node.operator, size, grid_size(_shape(graph, j)))
        sources.append(Source(step=source, reach=None if seen is None or reach is None else reach.through(seen)))
    return Step(
        name=node.name,
        operator=node.operator,
        layer=layer,
        size=size,
        channels=math.prod(node.shape) // (size[0] * size[1]),
        sources=tuple(sources),
        stride=_stride(node.operator),
        operations=_operations(node, len(node.inputs)),
    )


def _reach(operator: Operator, made: Pair, read: Pair) -> Reach | None:
    """Return which pixels of the input each output pixel needs; None for all of them."""
    if isinstance(operator, (Conv, ConvTranspose)):
        if isinstance(operator, Conv) and operator.spatial == 0:
            return _same(made) if made == read else None
        g = operator.geometry
        spans = []
        for axis in (0, 1):
            window = Span.transposed if isinstance(operator, ConvTranspose) else Span.window
            spans.append(
                window(made[axis], read[axis], kernel=g.kernel[axis], stride=g.stride[axis], dilation=g.dilation[axis], pad=g.pads[axis])
            )
        return Reach(rows=spans[0], columns=spans[1])
    if isinstance(operator, (MaxPool, AveragePool)):
        w = operator.window
        rows, columns = (
            Span.window(made[a], read[a], kernel=w.kernel[a], stride=w.stride[a], dilation=w.dilation[a], pad=w.pads[a]) for a in (0, 1)
        )
        return Reach(rows=rows, columns=columns)
    if isinstance(operator, Resize) and len(operator.matrices) == 3 and operator.matrices[0] is None:
        along = [Span.same(n) if m is None else Span.of_matrix(m) for n, m in zip(made, operator.matrices[1:])]
        return Reach(rows=along[0], columns=along[1])
    return _same(made) if made == read and _acts_on_pixels(operator) else None


def _acts_on_pixels(operator: Operator) -> bool:
    return operator.kind in ("Add", "Sub", "Mul", "Concat")


def _same(size: Pair) -> Reach:
    return Reach(rows=Span.same(size[0]), columns=Span.same(size[1]))


def _stride(operator: Operator) -> int:
    if isinstance(operator, Conv):
        return operator.geometry.stride[1]
    if isinstance(operator, (MaxPool, AveragePool)):
        return operator.window.stride[1]
    return 1


def _operations(node: Node, n_inputs: int) -> int:
    operator = node.operator
    if isinstance(operator, (Conv, ConvTranspose)):
        return 0
    if isinstance(operator, (MaxPool, AveragePool)):
        return int(np.prod(operator.window.kernel)) * math.prod(node.shape)
    return 0 if operator.kind == "Concat" else max(1, n_inputs - 1) * math.prod(node.shape)
