"""What is in an ONNX file, layer by layer, whether or not all of it is supported."""

from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import shape_inference

from devices.base.errors import NetworkError, UnsupportedMethodError, told_of
from workloads.network import INPUT, Node
from workloads.onnx_files import DOMAINS, OnnxFile, read_onnx
from workloads.onnx_graph import GraphBuilder, Tensor
from workloads.onnx_reader import find_entry, read_node, start
from workloads.operators.base import Array, LocalMap, Operator, Shape
from workloads.operators.matrix import MatrixOperator

SURVEY_FOLD_BYTES = 2**40
"""A survey only looks at shapes: a repeated constant takes no memory, so far larger ones may pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyRow:
    """One layer of a network as a survey finds it; a shape that cannot be known is None."""

    name: str
    operator: str
    in_shape: Shape | None
    out_shape: Shape | None
    n_parameters: int
    n_macs: int
    supported: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class _Unknown(Operator):
    """A place in the graph that no rule covers: it has a shape, perhaps, and a reason."""

    label: str
    shape: Shape
    reason: str

    @property
    def kind(self) -> str:
        return self.label

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return self.shape

    def forward(self, *inputs: Array) -> Array:
        raise UnsupportedMethodError(self.reason)

    def linearize(self, inputs: tuple[Array, ...], output: Array) -> LocalMap:
        raise UnsupportedMethodError(self.reason)


def survey(path: str | Path, *, input_shape: Shape | None = None) -> tuple[SurveyRow, ...]:
    """Return one row for each layer; what is not supported has the reason, and what follows it is still listed.

    Raises NetworkError only where there is no graph to look at: a missing or damaged file, or no single float input.
    """
    with told_of(Path(path)):
        file = read_onnx(Path(path))
        entry = find_entry(file, input_shape)
    build = start(file, entry, fold_limit_bytes=SURVEY_FOLD_BYTES)
    inferred = _inferred_shapes(file)
    lost: list[tuple[int, SurveyRow]] = []
    unknown: set[str] = set()
    for proto in file.graph.node:
        try:
            read_node(build, proto)
        except NetworkError as error:
            follows = unknown.intersection(proto.input)
            row = _stand_in(build, proto, inferred, f"it reads {min(follows)!r}, whose shape is not known" if follows else str(error))
            if row is not None:
                lost.append((len(build.nodes), row))
            unknown.update(name for name in proto.output if name not in build.values)
    rows = [_row(build, node, entry.shape) for node in build.nodes]
    for place, row in reversed(lost):
        rows.insert(place, row)
    return tuple(rows)


def _stand_in(build: GraphBuilder, proto: onnx.NodeProto, inferred: dict[str, Shape], reason: str) -> SurveyRow | None:
    """Put unknown operators where a node has no rule, one for each output whose shape is known; a row when none is."""
    placed = 0
    sources = [v for v in (build.values.get(name) for name in proto.input) if isinstance(v, Tensor)]
    for name in proto.output:
        if name in inferred and sources:
            build.values[name] = _place(build, proto, _Unknown(proto.op_type, inferred[name], reason), sources[0])
            placed += 1
    if placed:
        return None
    in_shape = sources[0].shape if sources else None
    name = proto.name or (proto.output[0] if proto.output else proto.op_type)
    return SurveyRow(
        name=name, operator=proto.op_type, in_shape=in_shape, out_shape=None, n_parameters=0, n_macs=0, supported=False, reason=reason
    )


def _place(build: GraphBuilder, proto: onnx.NodeProto, operator: _Unknown, source: Tensor) -> Tensor:
    build.nodes.append(Node(name=proto.name or proto.output[0], operator=operator, inputs=(source.index,), shape=operator.shape))
    return Tensor(len(build.nodes) - 1, operator.shape)


def _row(build: GraphBuilder, node: Node, input_shape: Shape) -> SurveyRow:
    operator, source = node.operator, node.inputs[0]
    matrix = operator if isinstance(operator, MatrixOperator) else None
    bias = 0 if matrix is None or matrix.bias is None else int(matrix.bias.size)
    return SurveyRow(
        name=node.name,
        operator=operator.kind,
        in_shape=input_shape if source == INPUT else build.nodes[source].shape,
        out_shape=node.shape,
        n_parameters=0 if matrix is None else int(matrix.weights.size) + bias,
        n_macs=0 if matrix is None else matrix.n_macs,
        supported=not isinstance(operator, _Unknown),
        reason=operator.reason if isinstance(operator, _Unknown) else "",
    )


def _inferred_shapes(file: OnnxFile) -> dict[str, Shape]:
    """Return the sample shapes that onnx itself can tell, by value name; custom nodes, on which it stops, are left out."""
    known = onnx.ModelProto()
    known.CopyFrom(file.model)
    for i in reversed([i for i, node in enumerate(known.graph.node) if node.domain not in DOMAINS]):
        del known.graph.node[i]
    try:
        graph = shape_inference.infer_shapes(known).graph
    except (shape_inference.InferenceError, RuntimeError, ValueError, TypeError):
        return {}
    shapes = {}
    for value in (*graph.value_info, *graph.output):
        dims = [d.dim_value for d in value.type.tensor_type.shape.dim[1:]]
        if dims and min(dims) > 0:
            shapes[value.name] = tuple(dims)
    return shapes
